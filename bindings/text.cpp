// Vocabularies on their way from a file to the tokenizer: half a million strings, too many for loops in Python.
#include "array.h"
#include "text/merges.h"

namespace octavo {
namespace {

py::str decoded(const uint8_t* bytes, size_t n) {
  PyObject* text = PyUnicode_DecodeUTF8(reinterpret_cast<const char*>(bytes), static_cast<Py_ssize_t>(n), "replace");
  if (text == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::str>(text);
}

uint64_t little_endian(const uint8_t* bytes) {
  uint64_t value = 0;
  for (int i = 8; i-- > 0;) value = value << 8 | bytes[i];
  return value;
}

py::object read_strings(const py::buffer& buffer, size_t start, size_t count) {
  std::span<const uint8_t> left = bytes_of(buffer);
  if (start > left.size() || count > (left.size() - start) / 8) return py::none();
  left = left.subspan(start);
  py::list strings(count);
  for (size_t i = 0; i < count; ++i) {
    if (left.size() < 8 || little_endian(left.data()) > left.size() - 8) return py::none();
    const size_t length = little_endian(left.data());
    strings[i] = decoded(left.data() + 8, length);
    left = left.subspan(8 + length);
  }
  return py::make_tuple(strings, bytes_of(buffer).size() - left.size());
}

// The text stays valid while the string lives.
std::string_view utf8_of(py::handle text) {
  Py_ssize_t size = 0;
  const char* bytes = PyUnicode_AsUTF8AndSize(text.ptr(), &size);
  if (bytes == nullptr) throw py::error_already_set();
  return {bytes, static_cast<size_t>(size)};
}

py::list token_merges(const py::list& tokens, const std::vector<float>& scores) {
  std::vector<std::string_view> texts;
  texts.reserve(tokens.size());
  for (const py::handle token : tokens) texts.push_back(utf8_of(token));
  std::vector<Merge> merges;
  {
    const py::gil_scoped_release unlocked;
    merges = merges_from_scores(texts, scores);
  }
  py::list pairs(merges.size());
  for (size_t i = 0; i < merges.size(); ++i)
    pairs[i] = py::make_tuple(py::handle(tokens[merges[i].left]), py::handle(tokens[merges[i].right]));
  return pairs;
}

}  // namespace

void register_text(py::module_& m) {
  m.def("read_strings", &read_strings, py::arg("buffer"), py::arg("start"), py::arg("count"),
        "(strings, position after them) of strings that each follow their length as u64; None where they end past the "
        "buffer. Bytes that are no UTF-8 become U+FFFD.");
  m.def("merges_from_scores", &token_merges, py::arg("tokens"), py::arg("scores"),
        "The BPE merges that a scored vocabulary implies, best first, as pairs of tokens.");
}

}  // namespace octavo
