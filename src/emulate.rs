//! The costs of stages, and plans in virtual time: cost models, sampled batches, executors and reports.

pub use dip_core::{
    Action, ExecError, Executor, Interpreter, Program, RankHost, RankProgram, RankProgress,
    Received, Span, StageCall, TaskCall, TaskOutput, Trace, TraceError, TraceFile, TraceFileError,
    compile,
};
pub use dip_emu::{
    AnalyticCost, Calibration, ErrorSummary, FitError, FittedTime, FsdpStep, GradientOverlap,
    LinkModel, MeasuredCost, Measurement, MemoryCurve, ModalityOperators, Noise, NoiseJudge,
    NoiseStudy, Operator, OperatorKind, OperatorRule, PartBuilder, Pass, Product, RankWaiting,
    Replicas, TensorId, VirtualExecutor, fit, fit_profile, fsdp, memory, model_flops, noise_study,
    report, sample, step_figures, sweep, trained_tokens, utilisation, with_measured_peaks,
};
