// The end of a layer in one pass over memory, forward and backward: q2(relu(q1(x) + y)), numerics Q and T.
//
// q1, y and the relu may each be missing, so a single quantizer is the same operator. `y` is a bias, one number for each element
// of the last axis, or a tensor of the shape of `x`. The backward pass computes everything anew from `x` and `y` and reduces the
// gradients of the bias and of both thresholds on its way.
//
// The numbers are those of kernels/tqt.py, operation by operation. Work is divided into chunks that depend on the shape alone;
// sums are formed in float over at most 64 terms, then in double, chunk after chunk: the same bits for any number of threads.
// Must not be compiled with -ffast-math or with contraction to fused multiply-adds.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <vector>

#include "tensorflow/core/framework/common_shape_fns.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/shape_inference.h"

#if defined(__clang__)
#define INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define INDEPENDENT _Pragma("GCC ivdep")
#endif

namespace tqt_onnx {

using tensorflow::Tensor;
using tensorflow::TensorShape;

constexpr float kMinExponent = -126 + 24, kMaxExponent = 127 - 24;  // Q5
constexpr int64_t kRowElements = 256;    // a row is at least this long: several pixels where a pixel has few channels
constexpr int64_t kChunkElements = 1 << 14;
constexpr int64_t kMinRows = 8, kMaxRows = 64;

enum class Addend { kNone, kChannels, kTensor };

// One quantizer: bits and sign, and the scale 2^exponent.
struct Grid {
  float lowest = 0, highest = 0, upper = 0, excess = 0, scale = 1, inverse = 1, guard = 0;

  Grid() = default;

  Grid(int bits, bool is_signed, float exponent, double limit) {
    lowest = is_signed ? -std::ldexp(1.0f, bits - 1) : 0.0f;  // Q3
    highest = std::ldexp(1.0f, is_signed ? bits - 1 : bits) - 1.0f;
    const bool legal = exponent >= kMinExponent && exponent <= kMaxExponent;  // false for NaN
    const int power = legal ? static_cast<int>(exponent) : 0;
    scale = std::ldexp(1.0f, power);  // Q4
    inverse = std::ldexp(1.0f, -power);
    guard = legal ? 0.0f : std::numeric_limits<float>::quiet_NaN();
    const double steps = static_cast<double>(inverse) * limit;  // L2; infinity where there is no limit
    const bool binds = std::nearbyint(steps) < highest;
    upper = binds ? static_cast<float>(std::nearbyint(steps)) : highest;
    excess = binds ? static_cast<float>(steps) : 0.0f;
  }
};

inline float Clip(float value, float low, float high) {  // NaN stays NaN
  value = value > high ? high : value;
  return value < low ? low : value;
}

inline float Quantize(const Grid& grid, float x) {
  return Clip(std::nearbyint(x * grid.inverse), grid.lowest, grid.upper) * grid.scale + grid.guard;  // Q1, Q2
}

// What T2 and T3 need of one number: the mask, and the derivative by the threshold in units of scale * ln 2.
struct Slopes {
  float integer, inside, step;

  Slopes(const Grid& grid, float x) {
    const float scaled = Clip(x * grid.inverse, grid.lowest - 1.0f, grid.highest + 1.0f);
    const float rounded = std::nearbyint(scaled);
    integer = Clip(rounded, grid.lowest, grid.upper);
    inside = rounded == integer ? 1.0f : 0.0f;
    step = integer - scaled * inside - (rounded > grid.upper ? grid.excess : 0.0f);
  }
};

// How a tensor is cut: rows of `width` elements, a whole number of pixels each, and chunks of `rows` rows.
struct Cut {
  int64_t size, width, rows, chunks;

  Cut(int64_t size, int64_t channels) : size(size) {
    width = channels * ((kRowElements + channels - 1) / channels);
    rows = std::min(kMaxRows, std::max(kMinRows, kChunkElements / width));
    chunks = (size + width * rows - 1) / (width * rows);
  }

  template <typename Work>  // work(chunk, offset of the row, its length)
  void EachRow(int64_t chunk, Work work) const {
    const int64_t end = std::min(size, (chunk + 1) * width * rows);
    for (int64_t at = chunk * width * rows; at < end; at += width) work(at, std::min(width, end - at));
  }
};

struct Problem {
  Cut cut;
  Grid first, second;
  const float* x;
  const float* tensor;      // the addend, where it is a tensor
  std::vector<float> bias;  // the addend of one row, where it belongs to channels
};

// `out` may be the memory of `x`: an element is read before it is written.
template <bool kFirst, Addend kAddend, bool kRelu>
void ForwardRow(const Problem& problem, int64_t at, int64_t length, float* out) {
  const Grid first = problem.first, second = problem.second;
  const float* x = problem.x + at;
  const float* y = kAddend == Addend::kTensor ? problem.tensor + at : problem.bias.data();
  out += at;
  INDEPENDENT
  for (int64_t j = 0; j < length; ++j) {
    float value = kFirst ? Quantize(first, x[j]) : x[j];
    if (kAddend != Addend::kNone) value += y[j];
    if (kRelu) value = value < 0.0f ? 0.0f : value;
    out[j] = Quantize(second, value);
  }
}

// Sums of one chunk, element of the row by element.
struct Sums {
  std::vector<float> first, second, addend;

  explicit Sums(int64_t width) : first(width), second(width), addend(width) {}

  void Clear() {
    for (auto* sums : {&first, &second, &addend}) std::fill(sums->begin(), sums->end(), 0.0f);
  }

  static double Total(const std::vector<float>& sums) {
    double total = 0;
    for (const float sum : sums) total += sum;
    return total;
  }
};

// `dx` and `dy` may be the memory of `gradient`: an element is read before it is written.
template <bool kFirst, Addend kAddend, bool kRelu>
void BackwardRow(const Problem& problem, const float* gradient, int64_t at, int64_t length, float* dx, float* dy, Sums* sums) {
  const Grid first = problem.first, second = problem.second;
  const float* x = problem.x + at;
  const float* y = kAddend == Addend::kTensor ? problem.tensor + at : problem.bias.data();
  float* sum_first = sums->first.data();
  float* sum_second = sums->second.data();
  float* sum_addend = sums->addend.data();
  gradient += at;
  dx += at;
  if (kFirst && kAddend == Addend::kTensor) dy += at;
  INDEPENDENT
  for (int64_t j = 0; j < length; ++j) {
    const Slopes inner(first, x[j]);
    float value = kFirst ? inner.integer * first.scale + first.guard : x[j];
    if (kAddend != Addend::kNone) value += y[j];
    const float rectified = kRelu && value < 0.0f ? 0.0f : value;
    const Slopes outer(second, rectified);
    sum_second[j] += gradient[j] * outer.step;  // T3
    float slope = gradient[j] * outer.inside;   // T2
    if (kRelu) slope = slope * (value > 0.0f ? 1.0f : 0.0f);
    if (kAddend == Addend::kChannels) sum_addend[j] += slope;
    if (kFirst) {
      if (kAddend == Addend::kTensor) dy[j] = slope;
      sum_first[j] += slope * inner.step;
      slope = slope * inner.inside;
    }
    dx[j] = slope;
  }
}

// Calls `work` with the three switches as constants of types: each combination is a loop of its own.
template <typename Work>
void Dispatch(bool first, Addend addend, bool relu, Work work) {
  const auto with_relu = [&](auto a, auto b) {
    relu ? work(a, b, std::true_type()) : work(a, b, std::false_type());
  };
  const auto with_addend = [&](auto a) {
    switch (addend) {
      case Addend::kNone: return with_relu(a, std::integral_constant<Addend, Addend::kNone>());
      case Addend::kChannels: return with_relu(a, std::integral_constant<Addend, Addend::kChannels>());
      case Addend::kTensor: return with_relu(a, std::integral_constant<Addend, Addend::kTensor>());
    }
  };
  first ? with_addend(std::true_type()) : with_addend(std::false_type());
}

class EpilogueBase : public tensorflow::OpKernel {
 public:
  explicit EpilogueBase(tensorflow::OpKernelConstruction* context) : OpKernel(context) {
    std::string addend;
    OP_REQUIRES_OK(context, context->GetAttr("first_bits", &first_bits_));
    OP_REQUIRES_OK(context, context->GetAttr("first_signed", &first_signed_));
    OP_REQUIRES_OK(context, context->GetAttr("second_bits", &second_bits_));
    OP_REQUIRES_OK(context, context->GetAttr("second_signed", &second_signed_));
    OP_REQUIRES_OK(context, context->GetAttr("addend_kind", &addend));
    OP_REQUIRES_OK(context, context->GetAttr("relu", &relu_));
    addend_ = addend == "none" ? Addend::kNone : addend == "channels" ? Addend::kChannels : Addend::kTensor;
  }

 protected:
  // Inputs from `at` on: x, addend, first exponent, second exponent, limit.
  bool Prepare(tensorflow::OpKernelContext* context, int at, Problem* problem) {
    const Tensor &x = context->input(at), &addend = context->input(at + 1);
    const int64_t size = x.NumElements(), count = addend.NumElements();
    bool fits = true;
    if (addend_ == Addend::kChannels) fits = x.dims() > 0 && addend.dims() == 1 && x.dim_size(x.dims() - 1) == count;
    if (addend_ == Addend::kTensor) fits = x.shape() == addend.shape();
    for (int index = at + 2; index < at + 5; ++index) fits = fits && context->input(index).NumElements() == 1;
    if (!fits) {
      context->CtxFailure(tensorflow::errors::InvalidArgument("epilogue: shapes do not fit: ", x.shape().DebugString(), ", ",
                                                              addend.shape().DebugString()));
      return false;
    }
    problem->cut = Cut(size, addend_ == Addend::kChannels ? std::max<int64_t>(count, 1) : 1);
    const float first = context->input(at + 2).flat<float>()(0), second = context->input(at + 3).flat<float>()(0);
    const double none = std::numeric_limits<double>::infinity();
    if (first_bits_ > 0) problem->first = Grid(first_bits_, first_signed_, first, none);
    problem->second = Grid(second_bits_, second_signed_, second, context->input(at + 4).flat<double>()(0));
    problem->x = x.flat<float>().data();
    problem->tensor = addend.flat<float>().data();
    if (addend_ == Addend::kChannels && size > 0) {
      problem->bias.resize(problem->cut.width);
      for (int64_t j = 0; j < problem->cut.width; ++j) problem->bias[j] = problem->tensor[j % count];
    }
    return true;
  }

  template <typename Work>  // work(first chunk, behind the last one)
  static void InParallel(tensorflow::OpKernelContext* context, const Cut& cut, int64_t cycles, Work work) {
    const auto* threads = context->device()->tensorflow_cpu_worker_threads();
    const auto cost = tsl::thread::ThreadPool::SchedulingParams::Adaptive(cut.width * cut.rows * cycles);
    threads->workers->ParallelFor(cut.chunks, cost, work);
  }

  int first_bits_, second_bits_;
  bool first_signed_, second_signed_, relu_;
  Addend addend_;
};

class EpilogueOp : public EpilogueBase {
 public:
  using EpilogueBase::EpilogueBase;

  void Compute(tensorflow::OpKernelContext* context) override {
    Problem problem{Cut(0, 1)};
    if (!Prepare(context, 0, &problem)) return;
    Tensor* out = nullptr;
    OP_REQUIRES_OK(context, context->forward_input_or_allocate_output({0}, 0, context->input(0).shape(), &out));
    float* y = out->flat<float>().data();
    Dispatch(first_bits_ > 0, addend_, relu_, [&](auto first, auto addend, auto relu) {
      InParallel(context, problem.cut, 2, [&](int64_t begin, int64_t end) {
        for (int64_t chunk = begin; chunk < end; ++chunk)
          problem.cut.EachRow(chunk, [&](int64_t at, int64_t length) {
            ForwardRow<first.value, addend.value, relu.value>(problem, at, length, y);
          });
      });
    });
  }
};

class EpilogueGradOp : public EpilogueBase {
 public:
  using EpilogueBase::EpilogueBase;

  void Compute(tensorflow::OpKernelContext* context) override {
    Problem problem{Cut(0, 1)};
    if (!Prepare(context, 1, &problem)) return;
    const Tensor &gradient = context->input(0), &x = context->input(1), &addend = context->input(2);
    OP_REQUIRES(context, gradient.shape() == x.shape(), tensorflow::errors::InvalidArgument("epilogue: gradient of another shape"));
    const bool both = first_bits_ > 0 && addend_ == Addend::kTensor;  // x and the addend have different gradients
    const int64_t channels = addend_ == Addend::kChannels ? addend.NumElements() : 0;
    Tensor *dx = nullptr, *dy = nullptr, *dfirst = nullptr, *dsecond = nullptr;
    OP_REQUIRES_OK(context, context->forward_input_or_allocate_output({0}, 0, x.shape(), &dx));
    if (addend_ == Addend::kTensor && !both) {
      context->set_output(1, *dx);
    } else {
      OP_REQUIRES_OK(context, context->allocate_output(1, addend.shape(), &dy));
    }
    OP_REQUIRES_OK(context, context->allocate_output(2, TensorShape({}), &dfirst));
    OP_REQUIRES_OK(context, context->allocate_output(3, TensorShape({}), &dsecond));
    const float* g = gradient.flat<float>().data();
    float* to_x = dx->flat<float>().data();
    float* to_y = both ? dy->flat<float>().data() : nullptr;
    const Cut& cut = problem.cut;
    const int64_t kept = channels + 2;
    std::vector<double> parts(cut.chunks * kept);  // of each chunk: both thresholds' sums, then the channels'
    Dispatch(first_bits_ > 0, addend_, relu_, [&](auto first, auto addend, auto relu) {
      InParallel(context, cut, 6, [&](int64_t begin, int64_t end) {
        Sums sums(cut.width);
        for (int64_t chunk = begin; chunk < end; ++chunk) {
          sums.Clear();
          cut.EachRow(chunk, [&](int64_t at, int64_t length) {
            BackwardRow<first.value, addend.value, relu.value>(problem, g, at, length, to_x, to_y, &sums);
          });
          double* part = &parts[chunk * kept];
          part[0] = Sums::Total(sums.first);
          part[1] = Sums::Total(sums.second);
          for (int64_t j = 0; channels > 0 && j < cut.width; ++j) part[2 + j % channels] += sums.addend[j];
        }
      });
    });
    std::vector<double> totals(kept);
    for (int64_t chunk = 0; chunk < cut.chunks; ++chunk)
      for (int64_t j = 0; j < kept; ++j) totals[j] += parts[chunk * kept + j];
    const double ln2 = 0.6931471805599453;
    dfirst->scalar<float>()() = static_cast<float>(totals[0] * (problem.first.scale * ln2));
    dsecond->scalar<float>()() = static_cast<float>(totals[1] * (problem.second.scale * ln2));
    for (int64_t j = 0; j < channels; ++j) dy->flat<float>()(j) = static_cast<float>(totals[2 + j]);
  }
};

#define EPILOGUE_ATTRIBUTES                      \
  Attr("first_bits: int")                        \
      .Attr("first_signed: bool")                \
      .Attr("second_bits: int")                  \
      .Attr("second_signed: bool")               \
      .Attr("addend_kind: {'none', 'channels', 'tensor'}") \
      .Attr("relu: bool")

REGISTER_OP("TqtOnnxEpilogue")
    .Input("x: float")
    .Input("addend: float")
    .Input("first: float")
    .Input("second: float")
    .Input("limit: double")
    .Output("y: float")
    .EPILOGUE_ATTRIBUTES.SetShapeFn(tensorflow::shape_inference::UnchangedShape);

REGISTER_OP("TqtOnnxEpilogueGrad")
    .Input("gradient: float")
    .Input("x: float")
    .Input("addend: float")
    .Input("first: float")
    .Input("second: float")
    .Input("limit: double")
    .Output("dx: float")
    .Output("daddend: float")
    .Output("dfirst: float")
    .Output("dsecond: float")
    .EPILOGUE_ATTRIBUTES.SetShapeFn([](tensorflow::shape_inference::InferenceContext* context) {
      context->set_output(0, context->input(1));
      context->set_output(1, context->input(2));
      context->set_output(2, context->Scalar());
      context->set_output(3, context->Scalar());
      return absl::OkStatus();
    });

REGISTER_KERNEL_BUILDER(Name("TqtOnnxEpilogue").Device(tensorflow::DEVICE_CPU), EpilogueOp);
REGISTER_KERNEL_BUILDER(Name("TqtOnnxEpilogueGrad").Device(tensorflow::DEVICE_CPU), EpilogueGradOp);

}  // namespace tqt_onnx
