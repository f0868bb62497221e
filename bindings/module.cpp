#include "array.h"
#include "base/cpu.h"
#include "base/memory.h"
#include "base/numa.h"
#include "kernels/kernels.h"

namespace octavo {
namespace {

void register_system(py::module_& m) {
  m.def(
      "isa", [] { return std::string(isa_name(kernels().isa)); }, "Name of the kernel table in use.");
  m.def("cpu_name", &cpu_name, "Brand string of the processor.");
  m.def("usable_cpus", &usable_cpus, "CPUs this process may use: the smaller of affinity mask and cgroup quota.");
  m.def(
      "numa_nodes", [] { return numa_nodes().size(); }, "NUMA nodes whose CPUs this process may use.");
  m.def("available_memory", &available_memory, "Bytes this process may still allocate.");
  m.attr("KV_BLOCK_TOKENS") = kKvTile;
  m.attr("__version__") = OCTAVO_VERSION;
}

}  // namespace
}  // namespace octavo

PYBIND11_MODULE(_core, m) {
  m.doc() = "The C++ core of octavo.";
  pybind11::register_exception<octavo::Error>(m, "CoreError", PyExc_ValueError);
  octavo::register_system(m);
  octavo::register_quant(m);
  octavo::register_text(m);
  octavo::register_graph(m);
  octavo::register_engine(m);
}
