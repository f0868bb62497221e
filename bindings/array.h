// Python buffers as raw bytes, so that no array library is needed.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <span>

#include "base/check.h"
#include "quant/format.h"

namespace octavo {

namespace py = pybind11;

// The bytes of a contiguous buffer. They stay valid while the Python object lives.
inline std::span<const uint8_t> bytes_of(const py::buffer& buffer) {
  Py_buffer view;
  if (PyObject_GetBuffer(buffer.ptr(), &view, PyBUF_C_CONTIGUOUS) != 0) throw py::error_already_set();
  const std::span<const uint8_t> bytes(static_cast<const uint8_t*>(view.buf), static_cast<size_t>(view.len));
  PyBuffer_Release(&view);
  return bytes;
}

inline Format format_named(const std::string& name) {
  const auto format = format_from_name(name);
  OCTAVO_CHECK(format, "octavo does not know the weight format ", name, ".");
  return *format;
}

void register_quant(py::module_& m);
void register_graph(py::module_& m);
void register_text(py::module_& m);
void register_engine(py::module_& m);

}  // namespace octavo
