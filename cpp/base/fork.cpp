#include "base/fork.h"

#include <pthread.h>

#include <algorithm>
#include <mutex>
#include <utility>
#include <vector>

namespace octavo {

struct ForkRegistry {
  std::mutex mutex;  // held from before a fork until after it
  std::vector<ForkHandler*> handlers;

  void before() {
    mutex.lock();
    for (ForkHandler* handler : handlers) handler->before_();
  }
  void after(bool in_child) {
    for (ForkHandler* handler : handlers) handler->after_(in_child);
    mutex.unlock();
  }
};

namespace {

// Never destroyed: a process may fork while it exits.
ForkRegistry& registry() {
  static ForkRegistry* const made = [] {
    pthread_atfork([] { registry().before(); }, [] { registry().after(false); }, [] { registry().after(true); });
    return new ForkRegistry;
  }();
  return *made;
}

}  // namespace

ForkHandler::ForkHandler(std::function<void()> before, std::function<void(bool in_child)> after)
    : before_(std::move(before)), after_(std::move(after)) {
  const std::lock_guard lock(registry().mutex);
  registry().handlers.push_back(this);
}

ForkHandler::~ForkHandler() {
  const std::lock_guard lock(registry().mutex);
  std::erase(registry().handlers, this);
}

}  // namespace octavo
