#include "graph/graph.h"
#include "aqlm.h"
#include "array.h"

namespace octavo {
namespace {

SourceMatrix source_of(const std::string& name, const std::string& format, int64_t n, int64_t k,
                       const py::buffer& rows) {
  const auto bytes = bytes_of(rows);
  return {name, format_named(format), n, k, bytes.data(), bytes.size()};
}

using AddMatrix = WeightId (WeightStore::*)(const SourceMatrix&, Format, bool);

auto add_by(AddMatrix add) {
  return [add](WeightStore& store, const std::string& name, const std::string& format, int64_t n, int64_t k,
               const py::buffer& rows, const std::string& target, bool mapped) {
    const SourceMatrix source = source_of(name, format, n, k, rows);
    const py::gil_scoped_release unlocked;
    return (store.*add)(source, format_named(target), mapped);
  };
}

void register_weights(py::module_& m) {
  py::class_<WeightStore>(m, "WeightStore", "The weights of one model.")
      .def(py::init([](int n_threads, int n_ranks) { return std::make_unique<WeightStore>(Crew(n_threads, n_ranks)); }),
           py::arg("n_threads"), py::arg("n_ranks") = 1)
      .def("add_linear", add_by(&WeightStore::add_linear), py::arg("name"), py::arg("format"), py::arg("n"),
           py::arg("k"), py::arg("rows"), py::arg("target"), py::arg("mapped"),
           "Repacks a matrix (n, k), converted to the target format where it has another.")
      .def("add_head", add_by(&WeightStore::add_head), py::arg("name"), py::arg("format"), py::arg("n"), py::arg("k"),
           py::arg("rows"), py::arg("target"), py::arg("mapped"),
           "The same matrix, as one that makes logits: greedy sampling screens them.")
      .def(
          "leave_linear",
          [](WeightStore& store, const std::string& name, const std::string& format, int64_t n, int64_t k,
             const py::buffer& rows, const std::string& target) {
            return store.leave_linear(source_of(name, format, n, k, rows), format_named(target));
          },
          py::arg("name"), py::arg("format"), py::arg("n"), py::arg("k"), py::arg("rows"), py::arg("target"),
          py::keep_alive<1, 6>(), "The same matrix, left where it is and repacked chunk by chunk at every use.")
      .def(
          "add_aqlm",
          [](WeightStore& store, const std::string& name, const AqlmShape& shape, const py::buffer& codes,
             const Floats& codebooks, const Floats& scales, const std::string& target, bool mapped) {
            const AqlmMatrix matrix = aqlm_of(name, shape, codes, codebooks, scales);
            const py::gil_scoped_release unlocked;
            return store.add_aqlm(matrix, format_named(target), mapped);
          },
          py::arg("name"), py::arg("shape"), py::arg("codes"), py::arg("codebooks"), py::arg("scales"),
          py::arg("target"), py::arg("mapped"),
          "A matrix of the shape (n, k, group, codebooks, bits of a code): dequantised to F32, or kept as codes.")
      .def(
          "leave_aqlm",
          [](WeightStore& store, const std::string& name, const AqlmShape& shape, const py::buffer& codes,
             const Floats& codebooks, const Floats& scales, const std::string& target) {
            return store.leave_aqlm(aqlm_of(name, shape, codes, codebooks, scales), format_named(target));
          },
          py::arg("name"), py::arg("shape"), py::arg("codes"), py::arg("codebooks"), py::arg("scales"),
          py::arg("target"), py::keep_alive<1, 4>(), "The same matrix, with its codes left where they are.")
      .def(
          "add_embedding",
          [](WeightStore& store, const std::string& name, const std::string& format, int64_t n, int64_t k,
             const py::buffer& rows) { return store.add_embedding(source_of(name, format, n, k, rows)); },
          py::arg("name"), py::arg("format"), py::arg("n"), py::arg("k"), py::arg("rows"), py::keep_alive<1, 6>(),
          "Rows stay where they are and are read at every lookup.")
      .def(
          "add_vector",
          [](WeightStore& store, const std::string& name, const std::string& format, int64_t n,
             const py::buffer& rows) { return store.add_vector(source_of(name, format, 1, n, rows)); },
          py::arg("name"), py::arg("format"), py::arg("n"), py::arg("rows"))
      .def_property_readonly("memory_bytes", &WeightStore::memory_bytes);
}

}  // namespace

void register_graph(py::module_& m) {
  register_weights(m);
  py::enum_<Activation>(m, "Activation")
      .value("silu", Activation::kSilu)
      .value("gelu", Activation::kGelu)
      .value("gelu_tanh", Activation::kGeluTanh)
      .value("quick_gelu", Activation::kQuickGelu)
      .value("relu", Activation::kRelu)
      .value("relu2", Activation::kRelu2)
      .value("tanh", Activation::kTanh)
      .value("sigmoid", Activation::kSigmoid);
  py::enum_<EmbedSource>(m, "EmbedSource")
      .value("tokens", EmbedSource::kTokens)
      .value("positions", EmbedSource::kPositions)
      .value("types", EmbedSource::kTypes);
  py::class_<Graph>(m, "Graph", "Ops recorded by tracing a model.")
      .def(py::init<const WeightStore&>(), py::arg("weights"), py::keep_alive<1, 2>())
      .def("embed", &Graph::embed, py::arg("table"), py::arg("source"), py::arg("offset"), py::arg("scale"))
      .def("gather", &Graph::gather, py::arg("width"))
      .def(
          "rms_norm",
          [](Graph& graph, ValueId x, WeightId weight, float eps) {
            return graph.norm(x, {NormOp::Kind::kRms, weight, std::nullopt, eps});
          },
          py::arg("x"), py::arg("weight"), py::arg("eps"))
      .def(
          "layer_norm",
          [](Graph& graph, ValueId x, WeightId weight, std::optional<WeightId> bias, float eps, int group) {
            return graph.norm(x, {NormOp::Kind::kLayer, weight, bias, eps, group});
          },
          py::arg("x"), py::arg("weight"), py::arg("bias"), py::arg("eps"), py::arg("group") = 0)
      .def(
          "linear",
          [](Graph& graph, ValueId x, const std::vector<std::pair<WeightId, std::optional<WeightId>>>& parts) {
            std::vector<LinearOp::Part> made;
            for (const auto& [weight, bias] : parts) made.push_back({weight, bias});
            return graph.linear(x, std::move(made));
          },
          py::arg("x"), py::arg("parts"), "One output for each (weight, bias or None).")
      .def(
          "attention",
          [](Graph& graph, ValueId q, ValueId k, ValueId v, int layer, int n_heads, int n_kv_heads, int head_dim,
             RopeId rope, int window, float scale, float soft_cap, bool causal, std::optional<WeightId> bias) {
            return graph.attention(q, k, v,
                                   {layer, n_heads, n_kv_heads, head_dim, rope, window, scale, soft_cap, causal, bias});
          },
          py::arg("q"), py::arg("k"), py::arg("v"), py::kw_only(), py::arg("layer"), py::arg("n_heads"),
          py::arg("n_kv_heads"), py::arg("head_dim"), py::arg("rope"), py::arg("window"), py::arg("scale"),
          py::arg("soft_cap"), py::arg("causal"), py::arg("bias"))
      .def("activation", &Graph::activation, py::arg("x"), py::arg("kind"))
      .def("scale", &Graph::scale, py::arg("x"), py::arg("factor"))
      .def("soft_cap", &Graph::soft_cap, py::arg("x"), py::arg("cap"))
      .def(
          "moe",
          [](Graph& graph, ValueId x, WeightId router, const std::vector<std::array<WeightId, 3>>& experts, int top_k,
             bool normalize, Activation activation) {
            MoeOp op{.router = router, .experts = {}, .top_k = top_k, .normalize = normalize, .activation = activation};
            for (const auto& [gate, up, down] : experts) op.experts.push_back({gate, up, down});
            return graph.moe(x, std::move(op));
          },
          py::arg("x"), py::kw_only(), py::arg("router"), py::arg("experts"), py::arg("top_k"), py::arg("normalize"),
          py::arg("activation"), "experts: (gate, up, down) of each.")
      .def("mul", &Graph::mul, py::arg("a"), py::arg("b"))
      .def("add", &Graph::add, py::arg("a"), py::arg("b"))
      .def(
          "add_rope",
          [](Graph& graph, std::vector<float> inv_freq, float scale, int switch_length,
             std::vector<float> long_inv_freq, double ntk_theta, double ntk_factor) {
            return graph.add_rope(
                {std::move(inv_freq), scale, switch_length, std::move(long_inv_freq), ntk_theta, ntk_factor});
          },
          py::arg("inv_freq"), py::arg("scale"), py::kw_only(), py::arg("switch_length"), py::arg("long_inv_freq"),
          py::arg("ntk_theta"), py::arg("ntk_factor"))
      .def("set_output", &Graph::set_output, py::arg("x"))
      .def("width", &Graph::width, py::arg("x"));
}

}  // namespace octavo
