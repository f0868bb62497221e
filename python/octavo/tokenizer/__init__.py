"""Text to token ids and back, and chats to text."""

from octavo.tokenizer.load import load_tokenizer, tokenizer_from_gguf
from octavo.tokenizer.tokenizer import Tokenizer

__all__ = ["Tokenizer", "load_tokenizer", "tokenizer_from_gguf"]
