"""What can go wrong between here and the hub, each as one sentence that says what to do."""

from __future__ import annotations

import errno

from octavo.errors import ModelError
from octavo.weights.hub_cache import HubRepo


def explained(error: Exception, repo: HubRepo) -> ModelError:
    """The sentence for an exception of huggingface_hub, or of the network or file system under it."""
    from huggingface_hub import constants, errors

    if isinstance(error, errors.LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    hub = constants.ENDPOINT
    if isinstance(error, errors.GatedRepoError):  # a RepositoryNotFoundError as well
        return _gated(repo, hub)
    if isinstance(error, errors.RepositoryNotFoundError):
        return _not_found(repo, hub)
    if isinstance(error, errors.RevisionNotFoundError):
        return ModelError(f"{repo.name} has no revision {repo.revision!r}; name a branch, tag or commit that it has.")
    if isinstance(error, errors.HfHubHTTPError):
        return _refused(error.response.status_code, repo, hub)
    if isinstance(error, errors.OfflineModeIsEnabled):
        return _offline(repo)
    if isinstance(error, OSError) and (error.filename or error.errno in (errno.ENOSPC, errno.EDQUOT)):
        return _no_place(error, repo)
    return _no_way(error, repo, hub)


def _gated(repo: HubRepo, hub: str) -> ModelError:
    return ModelError(
        f"{repo.name} is gated: accept its terms at {hub}/{repo.name} and set HF_TOKEN (or hf_token) to a token of the "
        "account that did."
    )


def _not_found(repo: HubRepo, hub: str) -> ModelError:
    return ModelError(
        f"{repo.name} is neither a local path nor a model on {hub} that you may see; check the spelling, and set "
        "HF_TOKEN (or hf_token) if it is private."
    )


def _refused(status: int, repo: HubRepo, hub: str) -> ModelError:
    if status in (401, 403):
        return ModelError(
            f"{hub} refused access to {repo.name} ({status}); set HF_TOKEN (or hf_token) to a valid token."
        )
    return ModelError(f"{hub} answered {status} for {repo.name}; try again later, or set HF_ENDPOINT to a mirror.")


def _offline(repo: HubRepo) -> ModelError:
    return ModelError(
        f"{repo.name} ({repo.revision}) is not whole in {repo.cache} and HF_HUB_OFFLINE is set; unset it for one start "
        "with a network, or copy the files there."
    )


def _no_place(error: OSError, repo: HubRepo) -> ModelError:
    return ModelError(
        f"{repo.name} cannot be kept in {repo.cache} ({error.strerror}); make room there, or name another folder by "
        "HF_HOME or download_dir."
    )


def _no_way(error: Exception, repo: HubRepo, hub: str) -> ModelError:
    reason = " ".join([f"{type(error).__name__}:", *str(error).split()])[:200]
    return ModelError(
        f"{repo.name} could not be fetched from {hub} ({reason}); check the network, or set HF_ENDPOINT to a mirror, "
        "and start again: files already fetched are kept."
    )
