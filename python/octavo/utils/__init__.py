"""Helpers for scripts."""

from octavo.utils.argparse_utils import FlexibleArgumentParser

__all__ = ["FlexibleArgumentParser"]
