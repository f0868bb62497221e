#include "engine/engine.h"

#include <cmath>
#include <memory>

#include "array.h"

namespace octavo {
namespace {

// Everything an engine is built with, as one object.
struct EngineOptions {
  int n_threads = 1;
  int n_ranks = 1;
  bool exact = false;  // float32 keys and values
  int max_model_len = 0;
  int max_num_seqs = 0;
  int max_num_batched_tokens = 0;
  bool enable_prefix_caching = true;
  bool enable_chunked_prefill = true;
  bool priority_scheduling = false;
  bool bidirectional = false;
  int64_t kv_cache_bytes = 0;
  uint64_t seed = 0;
  bool poison_blocks = false;
};

SchedulerConfig scheduler_config(const EngineOptions& options) {
  return {.max_num_seqs = options.max_num_seqs,
          .max_num_batched_tokens = options.max_num_batched_tokens,
          .max_model_len = options.max_model_len,
          .policy = options.priority_scheduling ? SchedulingPolicy::kPriority : SchedulingPolicy::kFcfs,
          .enable_chunked_prefill = options.enable_chunked_prefill};
}

// Work that is never cut may exceed the budget of a step by a whole sequence.
int max_batch(const EngineOptions& options) {
  const bool cuts = options.enable_chunked_prefill && !options.bidirectional;
  return cuts ? options.max_num_batched_tokens : std::max(options.max_num_batched_tokens, options.max_model_len);
}

std::vector<Token> token_list(std::span<const Token> tokens) { return {tokens.begin(), tokens.end()}; }

// The core's memory as an array that does not own it.
template <class T>
py::array_t<T> borrowed(T* data, const std::vector<py::ssize_t>& shape) {
  return py::array_t<T>(shape, data, py::capsule(data, [](void*) {}));
}

// All masks of a tile in one call, so that the host can fill them in parallel.
void fill_masks(const py::object& hook, std::span<const HookRow> rows, int vocab) {
  py::list ids;
  py::list outputs;
  uint32_t* masks = nullptr;
  for (const HookRow& row : rows) {
    if (row.mask == nullptr) continue;
    if (masks == nullptr) masks = row.mask;
    ids.append(row.id);
    outputs.append(borrowed(const_cast<Token*>(row.history.output.data()), {std::ssize(row.history.output)}));
  }
  if (masks == nullptr) return;
  hook.attr("fill_masks")(ids, outputs, borrowed(masks, {static_cast<py::ssize_t>(ids.size()), mask_words(vocab)}));
}

// The executor and the engine that drives it.
class PyEngine {
 public:
  PyEngine(const Graph& body, const Graph& head, const EngineOptions& options)
      : executor_({.crew = {options.n_threads, options.n_ranks},
                   .kv_type = options.exact ? KvType::kF32 : KvType::kBF16,
                   .max_tokens = max_batch(options),
                   .max_context = options.max_model_len,
                   .kv_bytes = options.kv_cache_bytes},
                  body, head),
        engine_({.scheduler = scheduler_config(options),
                 .bidirectional = options.bidirectional,
                 .enable_prefix_caching = options.enable_prefix_caching,
                 .seed = options.seed,
                 .poison_blocks = options.poison_blocks},
                executor_) {}

  void run(const std::vector<int64_t>& ids, bool any_change, double seconds, const py::object& hook) {
    const HostHook host_hook = hook.is_none() ? HostHook() : make_hook(hook);
    try {
      const py::gil_scoped_release unlocked;
      engine_.run(ids, any_change, seconds, interrupted, host_hook);
    } catch (const Interrupted&) {
      throw py::error_already_set();  // the signal handler's exception
    }
  }

  Engine& engine() { return engine_; }
  const Executor& executor() const { return executor_; }

 private:
  static bool interrupted() {
    const py::gil_scoped_acquire locked;
    return PyErr_CheckSignals() != 0;
  }

  HostHook make_hook(const py::object& hook) const {
    return [&hook, vocab = executor_.head_width()](std::span<const HookRow> rows) {
      const py::gil_scoped_acquire locked;
      fill_masks(hook, rows, vocab);
      for (const HookRow& row : rows) {
        if (row.logits == nullptr) continue;
        hook.attr("process_logits")(row.id, borrowed(row.logits, {vocab}), token_list(row.history.prompt),
                                    token_list(row.history.output));
      }
    };
  }

  Executor executor_;
  Engine engine_;
};

const char* finish_name(FinishReason reason) {
  switch (reason) {
    case FinishReason::kNone: return nullptr;
    case FinishReason::kStop: return "stop";
    case FinishReason::kLength: return "length";
    case FinishReason::kAbort: return "abort";
    case FinishReason::kError: return "error";
    case FinishReason::kRepetition: return "repetition";
  }
  return nullptr;
}

// (chosen id, its logprob, its rank, top ids (k,), their logprobs (k,), [(id, logprob, rank) of those asked for by
// name]), or None where nothing was computed.
py::object logprobs_tuple(const TokenLogprobs& row) {
  if (row.rank == 0) return py::none();
  const auto k = static_cast<py::ssize_t>(row.top.size());
  py::array_t<int32_t> ids(k);
  py::array_t<float> values(k);
  for (py::ssize_t i = 0; i < k; ++i) {
    ids.mutable_data()[i] = row.top[static_cast<size_t>(i)].id;
    values.mutable_data()[i] = row.top[static_cast<size_t>(i)].value;
  }
  py::list named;
  for (size_t i = 0; i < row.named.size(); ++i)
    named.append(py::make_tuple(row.named[i].id, row.named[i].value, row.named_ranks[i]));
  return py::make_tuple(row.chosen.id, row.chosen.value, row.rank, ids, values, named);
}

py::list logprobs_list(const std::vector<TokenLogprobs>& rows) {
  py::list list;
  for (const TokenLogprobs& row : rows) list.append(logprobs_tuple(row));
  return list;
}

// (n_rows, width), or None for a sequence that has not been pooled.
py::object pooled_array(const SequenceView& view) {
  if (view.pooled.empty()) return py::none();
  const auto n = static_cast<py::ssize_t>(view.pooled.size());
  const auto width = static_cast<py::ssize_t>(view.pooled_width);
  return py::array_t<float>({n / width, width}, view.pooled.data());
}

Pooling pooling_named(const std::string& name) {
  if (name == "last") return Pooling::kLast;
  if (name == "cls") return Pooling::kCls;
  if (name == "mean") return Pooling::kMean;
  if (name == "all") return Pooling::kAll;
  fail("[add_pooling] pooling must be last, cls, mean or all, got ", name, ".");
}

using FloatArray = py::array_t<float, py::array::c_style | py::array::forcecast>;

std::vector<float> values_of(const std::optional<FloatArray>& array) {
  return array ? std::vector<float>(array->data(), array->data() + array->size()) : std::vector<float>{};
}

int64_t add_sequence(PyEngine& self, std::vector<Token> prompt, const SamplingConfig& sampling, int priority,
                     std::string cache_salt, uint64_t request, uint32_t child,
                     const std::optional<FloatArray>& embeds) {
  SequenceSpec spec{std::move(prompt), sampling, priority, std::move(cache_salt), request, child};
  spec.embeds = values_of(embeds);
  const py::gil_scoped_release unlocked;
  return self.engine().add(std::move(spec));
}

int64_t add_pooling(PyEngine& self, std::vector<Token> prompt, const std::string& pooling,
                    std::optional<std::vector<int32_t>> token_types, int priority, std::string cache_salt,
                    uint64_t request) {
  SequenceSpec spec{.prompt = std::move(prompt), .priority = priority, .cache_salt = std::move(cache_salt)};
  spec.request = request;
  spec.token_types = std::move(token_types).value_or(std::vector<int32_t>{});
  spec.pooling = pooling_named(pooling);
  const py::gil_scoped_release unlocked;
  return self.engine().add(std::move(spec));
}

TokenTable make_table(const std::vector<py::bytes>& tokens, const std::vector<uint8_t>& flags, bool strip_leading_space,
                      bool whole_byte_runs) {
  OCTAVO_CHECK(tokens.size() == flags.size(), "[token table] ", tokens.size(), " tokens but ", flags.size(), " flags.");
  TokenTable table;
  for (size_t i = 0; i < tokens.size(); ++i) table.add(std::string_view(tokens[i]), flags[i]);
  table.strip_leading_space = strip_leading_space;
  table.whole_byte_runs = whole_byte_runs;
  return table;
}

void register_sampling(py::module_& m) {
  py::enum_<LogprobsMode>(m, "LogprobsMode")
      .value("raw_logprobs", LogprobsMode::kRawLogprobs)
      .value("raw_logits", LogprobsMode::kRawLogits)
      .value("processed_logprobs", LogprobsMode::kProcessedLogprobs)
      .value("processed_logits", LogprobsMode::kProcessedLogits);
  py::class_<SamplingConfig>(m, "SamplingConfig", "Validated sampling parameters of one sequence.")
      .def(py::init<>())
      .def_readwrite("temperature", &SamplingConfig::temperature)
      .def_readwrite("top_p", &SamplingConfig::top_p)
      .def_readwrite("top_k", &SamplingConfig::top_k)
      .def_readwrite("min_p", &SamplingConfig::min_p)
      .def_readwrite("presence_penalty", &SamplingConfig::presence_penalty)
      .def_readwrite("frequency_penalty", &SamplingConfig::frequency_penalty)
      .def_readwrite("repetition_penalty", &SamplingConfig::repetition_penalty)
      .def_readwrite("seed", &SamplingConfig::seed)
      .def_readwrite("max_tokens", &SamplingConfig::max_tokens)
      .def_readwrite("min_tokens", &SamplingConfig::min_tokens)
      .def_readwrite("eos_token_ids", &SamplingConfig::eos_token_ids)
      .def_readwrite("stop_token_ids", &SamplingConfig::stop_token_ids)
      .def_readwrite("ignore_eos", &SamplingConfig::ignore_eos)
      .def_readwrite("stop", &SamplingConfig::stop)
      .def_readwrite("include_stop_str_in_output", &SamplingConfig::include_stop_str_in_output)
      .def_readwrite("detokenize", &SamplingConfig::detokenize)
      .def_readwrite("skip_special_tokens", &SamplingConfig::skip_special_tokens)
      .def_readwrite("logprobs", &SamplingConfig::logprobs)
      .def_readwrite("prompt_logprobs", &SamplingConfig::prompt_logprobs)
      .def_readwrite("logprob_token_ids", &SamplingConfig::logprob_token_ids)
      .def_readwrite("prompt_logprob_token_ids", &SamplingConfig::prompt_logprob_token_ids)
      .def_readwrite("prompt_logprob_start", &SamplingConfig::prompt_logprob_start)
      .def_readwrite("logprobs_mode", &SamplingConfig::logprobs_mode)
      .def_readwrite("skip_prefix_cache", &SamplingConfig::skip_prefix_cache)
      .def(
          "set_repetition_detection",
          [](SamplingConfig& config, int max_pattern_size, int min_pattern_size, int min_count) {
            config.repetition = {max_pattern_size, min_pattern_size, min_count};
          },
          py::arg("max_pattern_size"), py::arg("min_pattern_size"), py::arg("min_count"))
      .def_property(
          "logit_bias", [](const SamplingConfig& config) { return config.logit_bias.size(); },
          [](SamplingConfig& config, const std::vector<std::pair<Token, float>>& biases) {
            config.logit_bias.clear();
            for (const auto& [id, bias] : biases) config.logit_bias.push_back({id, bias});
          })
      .def_readwrite("allowed_token_ids", &SamplingConfig::allowed_token_ids)
      .def_readwrite("bad_words", &SamplingConfig::bad_words)
      .def_readwrite("host_hook", &SamplingConfig::host_hook)
      .def_readwrite("host_mask", &SamplingConfig::host_mask);
}

void register_views(py::module_& m) {
  py::class_<SequenceView>(m, "SequenceView", "What is new of a sequence since its last view.")
      .def_readonly("id", &SequenceView::id)
      .def_readonly("output", &SequenceView::output)
      .def_property_readonly("text", [](const SequenceView& view) { return view.text; })
      .def_property_readonly("logprobs", [](const SequenceView& view) { return logprobs_list(view.logprobs); })
      .def_property_readonly("prompt_logprobs",
                             [](const SequenceView& view) { return logprobs_list(view.prompt_logprobs); })
      .def_property_readonly("pooled", pooled_array)
      .def_property_readonly("finish_reason", [](const SequenceView& view) { return finish_name(view.finish); })
      .def_readonly("stop_token", &SequenceView::stop_token)
      .def_readonly("stop_string", &SequenceView::stop_string)
      .def_readonly("error", &SequenceView::error)
      .def_readonly("n_cached", &SequenceView::n_cached)
      .def_property_readonly("times", [](const SequenceView& view) {
        return py::make_tuple(view.times.queued, view.times.scheduled, view.times.first_token, view.times.last_token);
      });
  py::class_<EngineStats>(m, "EngineStats")
      .def_readonly("n_steps", &EngineStats::n_steps)
      .def_readonly("n_prompt_tokens", &EngineStats::n_prompt_tokens)
      .def_readonly("n_output_tokens", &EngineStats::n_output_tokens)
      .def_readonly("n_cached_tokens", &EngineStats::n_cached_tokens)
      .def_readonly("n_preemptions", &EngineStats::n_preemptions)
      .def_readonly("n_running", &EngineStats::n_running)
      .def_readonly("n_waiting", &EngineStats::n_waiting)
      .def_readonly("n_blocks", &EngineStats::n_blocks)
      .def_readonly("n_free_blocks", &EngineStats::n_free_blocks);
}

void register_options(py::module_& m) {
  py::class_<EngineOptions>(m, "EngineOptions")
      .def(py::init<>())
      .def_readwrite("n_threads", &EngineOptions::n_threads)
      .def_readwrite("n_ranks", &EngineOptions::n_ranks)
      .def_readwrite("exact", &EngineOptions::exact)
      .def_readwrite("max_model_len", &EngineOptions::max_model_len)
      .def_readwrite("max_num_seqs", &EngineOptions::max_num_seqs)
      .def_readwrite("max_num_batched_tokens", &EngineOptions::max_num_batched_tokens)
      .def_readwrite("enable_prefix_caching", &EngineOptions::enable_prefix_caching)
      .def_readwrite("enable_chunked_prefill", &EngineOptions::enable_chunked_prefill)
      .def_readwrite("priority_scheduling", &EngineOptions::priority_scheduling)
      .def_readwrite("bidirectional", &EngineOptions::bidirectional)
      .def_readwrite("kv_cache_bytes", &EngineOptions::kv_cache_bytes)
      .def_readwrite("seed", &EngineOptions::seed)
      .def_readwrite("poison_blocks", &EngineOptions::poison_blocks);
}

}  // namespace

void register_engine(py::module_& m) {
  register_sampling(m);
  register_views(m);
  register_options(m);
  py::class_<PyEngine>(m, "Engine", "Runs sequences through a traced model.")
      .def(py::init<const Graph&, const Graph&, const EngineOptions&>(), py::arg("body"), py::arg("head"),
           py::arg("options"), py::keep_alive<1, 2>(), py::keep_alive<1, 3>())
      .def(
          "set_token_table",
          [](PyEngine& self, const std::vector<py::bytes>& tokens, const std::vector<uint8_t>& flags, bool strip,
             bool runs) { self.engine().set_token_table(make_table(tokens, flags, strip, runs)); },
          py::arg("tokens"), py::arg("flags"), py::arg("strip_leading_space"), py::arg("whole_byte_runs"))
      .def("add", add_sequence, py::arg("prompt"), py::arg("sampling"), py::kw_only(), py::arg("priority"),
           py::arg("cache_salt"), py::arg("request"), py::arg("child"), py::arg("embeds") = py::none(),
           "Returns the sequence's id. embeds: (n_prompt, embedding_size) rows in place of the tokens' embeddings.")
      .def("add_pooling", add_pooling, py::arg("token_ids"), py::arg("pooling"), py::kw_only(),
           py::arg("token_types") = py::none(), py::arg("priority"), py::arg("cache_salt"), py::arg("request"),
           "Returns the id of a sequence that ends with a pooled result: last, cls, mean or all.")
      .def(
          "remove", [](PyEngine& self, const std::vector<int64_t>& ids) { self.engine().remove(ids); }, py::arg("ids"),
          py::call_guard<py::gil_scoped_release>())
      .def("run", &PyEngine::run, py::arg("ids"), py::kw_only(), py::arg("any_change"), py::arg("seconds"),
           py::arg("hook"))
      .def(
          "updates", [](PyEngine& self, const std::vector<int64_t>& ids) { return self.engine().updates(ids); },
          py::arg("ids"), py::call_guard<py::gil_scoped_release>())
      .def(
          "stats", [](PyEngine& self) { return self.engine().stats(); }, py::call_guard<py::gil_scoped_release>())
      .def(
          "reset_prefix_cache", [](PyEngine& self) { self.engine().reset_prefix_cache(); },
          py::call_guard<py::gil_scoped_release>())
      .def("check_integrity", [](PyEngine& self) { self.engine().check_integrity(); })
      .def_property_readonly("vocab_size", [](const PyEngine& self) { return self.executor().head_width(); })
      .def_property_readonly("embedding_size", [](const PyEngine& self) { return self.executor().embedding_width(); })
      .def_property_readonly("kv_block_bytes", [](const PyEngine& self) { return self.executor().kv_block_bytes(); })
      .def_property_readonly("n_blocks", [](const PyEngine& self) { return self.executor().n_blocks(); })
      .def_property_readonly("arena_bytes", [](const PyEngine& self) { return self.executor().arena_bytes(); });
}

}  // namespace octavo
