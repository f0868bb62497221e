// What objects with locks do about fork(), so that the child can go on with them.
#pragma once

#include <functional>

namespace octavo {

// While it exists: `before` is called in the thread that forks, which may take locks there, and `after` in the same
// thread of both processes. Make it the last member of what it cares for. Neither may create or destroy handlers.
class ForkHandler {
 public:
  ForkHandler(std::function<void()> before, std::function<void(bool in_child)> after);
  ~ForkHandler();
  ForkHandler(const ForkHandler&) = delete;
  ForkHandler& operator=(const ForkHandler&) = delete;

 private:
  friend struct ForkRegistry;
  std::function<void()> before_;
  std::function<void(bool in_child)> after_;
};

}  // namespace octavo
