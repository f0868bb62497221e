"""Opens a GGUF model, in one file or split over several."""

from __future__ import annotations

import os
import re
from pathlib import Path

from octavo.checks import shown
from octavo.errors import ModelError
from octavo.weights.gguf.reader import GGUFFile

_SPLIT_NAME = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.DOTALL)


class SplitGGUFFile(GGUFFile):
    """All parts of a split model as one file: the first part's metadata, every part's tensors.

    Raises:
        ModelError: a part is missing or damaged, or the parts do not belong together.
    """

    def __init__(self, paths: list[Path]) -> None:
        super().__init__(paths[0])
        self._rest: list[GGUFFile] = []
        try:
            for index, path in enumerate(paths[1:], start=1):
                if not path.exists():
                    raise ModelError(f"{path} is missing, one of the {len(paths)} files of the model; fetch it too.")
                self._rest.append(GGUFFile(path))
                self._merge(self._rest[-1], index)
            self._check_total()
        except BaseException:
            self.close()
            raise

    def _merge(self, part: GGUFFile, index: int) -> None:
        if part.metadata.get("split.no") != index:
            raise ModelError(f"{part.path} is not part {index + 1} of {self.path}; fetch all parts of one model again.")
        for name, tensor in part.tensors.items():
            if self.tensors.setdefault(name, tensor) is not tensor:
                held = f"holds the tensor {shown(name)} of an earlier part"
                raise ModelError(f"{part.path} {held}; fetch all parts again.")

    def _check_total(self) -> None:
        expected = self.metadata.get("split.tensors.count")
        if expected is not None and expected != len(self.tensors):
            raise ModelError(
                f"{self.path} and its other parts hold {len(self.tensors)} tensors, not the {shown(expected)} they"
                " should; fetch all parts of one model again."
            )

    def close(self) -> None:
        super().close()
        for part in self._rest:
            part.close()


def open_gguf(path: str | os.PathLike[str]) -> GGUFFile:
    """Open the model that ``path`` belongs to; for any part of a split model, the whole of it.

    Raises:
        ModelError: a file is missing, is no GGUF, or is damaged; or the parts do not belong together.
    """
    file = GGUFFile(path)
    count = file.metadata.get("split.count", 1)
    if count in (0, 1):
        return file
    file.close()
    if not isinstance(count, int):
        raise ModelError(f"{file.path} is in {shown(count)} parts, which is no number; fetch the model again.")
    name = _SPLIT_NAME.fullmatch(os.fspath(path))
    if name is None or int(name["count"]) != count:
        raise ModelError(
            f"{os.fspath(path)} is one of {count} parts of a model but is not named so; name the parts"
            f" ...-00001-of-{count:05}.gguf and so on."
        )
    return SplitGGUFFile(
        [Path(f"{name['stem']}-{number:05}-of-{name['count']}.gguf") for number in range(1, count + 1)]
    )
