#include "aqlm.h"
#include "array.h"
#include "graph/aqlm_search.h"
#include "kernels/kernels.h"
#include "quant/planes.h"

namespace octavo {
namespace {

// Names of the ISAs whose tables multiply this format without dequantising it first.
py::list own_kernels(Format format) {
  py::list names;
  for (int i = 0; i < kIsaCount; ++i) {
    const auto isa = static_cast<Isa>(i);
    const LinearKernel& kernel = kernel_table(isa)->linear[static_cast<size_t>(format)];
    if (has_planes(format) && kernel.run != nullptr) names.append(isa_name(isa));
  }
  return names;
}

py::list formats() {
  py::list rows;
  for (const FormatRow& row : all_formats())
    rows.append(py::dict(py::arg("name") = row.name, py::arg("gguf_id") = row.gguf_id,
                         py::arg("block_size") = row.block_size, py::arg("block_bytes") = row.block_bytes,
                         py::arg("kernels") = own_kernels(row.format)));
  return rows;
}

const FormatRow& checked_row(const std::string& name, int64_t n) {
  const FormatRow& row = format_row(format_named(name));
  OCTAVO_CHECK(n >= 0 && n % row.block_size == 0, n, " weights are no whole number of ", row.name, " blocks of ",
               row.block_size, ".");
  return row;
}

py::array_t<float> dequantize(const std::string& name, const py::buffer& blocks, int64_t n) {
  const FormatRow& row = checked_row(name, n);
  const auto bytes = bytes_of(blocks);
  OCTAVO_CHECK(bytes.size() == row_bytes(row.format, n), n, " weights in ", row.name, " take ",
               row_bytes(row.format, n), " bytes, got ", bytes.size(), ".");
  py::array_t<float> out(n);
  row.dequantize(out.mutable_data(), bytes.data(), n);
  return out;
}

py::array_t<uint8_t> quantize(const std::string& name,
                              const py::array_t<float, py::array::c_style | py::array::forcecast>& values) {
  const FormatRow& row = checked_row(name, values.size());
  OCTAVO_CHECK(row.quantize != nullptr, "octavo reads ", row.name,
               " but does not write it; quantise to another format.");
  py::array_t<uint8_t> out(static_cast<py::ssize_t>(row_bytes(row.format, values.size())));
  row.quantize(out.mutable_data(), values.data(), values.size());
  return out;
}

py::array_t<float> dequantize_aqlm(const AqlmShape& shape, const py::buffer& codes, const Floats& codebooks,
                                   const Floats& scales) {
  const AqlmMatrix matrix = aqlm_of("matrix", shape, codes, codebooks, scales);
  check_aqlm(matrix);
  py::array_t<float> out({matrix.n, matrix.k});
  for (int64_t row = 0; row < matrix.n; ++row) {
    float* weights = out.mutable_data(row);
    decode_aqlm_row(weights, matrix, row);
    for (int64_t i = 0; i < matrix.k; ++i) weights[i] *= matrix.scales[row];
  }
  return out;
}

py::array_t<int32_t> search_aqlm(const Floats& groups, const Floats& vectors, int n_threads) {
  OCTAVO_CHECK(groups.ndim() == 2 && groups.shape(1) == kAqlmSearchGroup && vectors.ndim() == 3 &&
                   vectors.shape(2) == kAqlmSearchGroup && n_threads >= 1,
               "The search takes groups (n, 8), vectors (codebooks, size, 8) and at least one thread.");
  const int64_t n = groups.shape(0);
  const auto n_codebooks = static_cast<int>(vectors.shape(0)), size = static_cast<int>(vectors.shape(1));
  py::array_t<int32_t> codes({n, int64_t{n_codebooks}});
  int32_t* out = codes.mutable_data();
  const py::gil_scoped_release release;
  search_aqlm_codes(out, groups.data(), n, vectors.data(), n_codebooks, size, Crew(n_threads));
  return codes;
}

}  // namespace

void register_quant(py::module_& m) {
  m.def("formats", &formats, "The table of weight formats.");
  m.def("dequantize", &dequantize, py::arg("format"), py::arg("blocks"), py::arg("n"),
        "(n,) float32 values of n weights.");
  m.def("dequantize_aqlm", &dequantize_aqlm, py::arg("shape"), py::arg("codes"), py::arg("codebooks"),
        py::arg("scales"), "(n, k) float32 weights of the shape (n, k, group, codebooks, bits of a code).");
  m.def("search_aqlm", &search_aqlm, py::arg("groups"), py::arg("vectors"), py::arg("n_threads"),
        "(n, codebooks) int32: for each of the groups (n, 8) the vectors (codebooks, size, 8), one of each codebook, "
        "whose sum is near it.");
  m.def("quantize", &quantize, py::arg("format"), py::arg("values"), "The blocks of float32 values, as bytes.");
}

}  // namespace octavo
