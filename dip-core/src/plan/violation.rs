//! The violations that the checker and the readers report.

use std::fmt;

/// Maximum number of violations in one report. A reader stops collecting after that.
pub const MAX_VIOLATIONS: usize = 10_000;

/// One thing that is wrong with a graph or a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Violation {
    /// The kind of violation.
    pub code: ViolationCode,
    /// Its path in the document, such as `tasks[3].deps[0].comm_s`.
    pub path: String,
    /// The value, the limit and the remedy.
    pub message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}: {}", self.code, self.path, self.message)
    }
}

/// The part of a document that a violation concerns. Loaders accept plans whose violations all concern figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ViolationClass {
    /// The form of the document.
    Structure,
    /// The stages and their dependencies.
    Graph,
    /// The order of execution.
    Order,
    /// Times, memory and bounds.
    Figures,
}

macro_rules! codes {
    ($($class:ident { $($(#[$doc:meta])+ $name:ident = $text:literal,)+ })+) => {
        /// The kinds of violations. Their text form is stable.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum ViolationCode {
            $($($(#[$doc])+ $name,)+)+
        }

        impl ViolationCode {
            /// Every code.
            pub const ALL: &'static [Self] = &[$($(Self::$name,)+)+];

            /// The stable name, in kebab case.
            pub const fn as_str(self) -> &'static str {
                match self { $($(Self::$name => $text,)+)+ }
            }

            /// The part of a document it concerns.
            pub const fn class(self) -> ViolationClass {
                match self { $($(Self::$name => ViolationClass::$class,)+)+ }
            }
        }
    };
}

codes! {
    Structure {
        /// A field that the format does not have.
        UnknownField = "unknown-field",
        /// A required field is missing.
        MissingField = "missing-field",
        /// A field is given twice.
        DuplicateField = "duplicate-field",
        /// A value is of another JSON type.
        WrongType = "wrong-type",
        /// An array has more or fewer entries than it must.
        WrongLength = "wrong-length",
        /// A number is NaN or infinite.
        NotFinite = "not-finite",
        /// A number is below zero.
        Negative = "negative",
        /// A number has a fraction or exponent where an integer is required.
        NotAnInteger = "not-an-integer",
        /// A number is above its limit, or an identifier names nothing.
        OutOfRange = "out-of-range",
        /// A task is neither forward, backward nor weight.
        UnknownKind = "unknown-kind",
        /// A task's id is not its position.
        IdMismatch = "id-mismatch",
        /// The document has too many tasks.
        TooMany = "too-many",
    }
    Graph {
        /// Dependencies form a cycle.
        DependencyCycle = "dependency-cycle",
        /// A task depends on another task twice.
        DuplicateDependency = "duplicate-dependency",
        /// Two tasks are the same stage.
        DuplicateStage = "duplicate-stage",
        /// A stage lacks another stage of its pair.
        UnpairedStage = "unpaired-stage",
        /// A backward or weight task has activation bytes.
        ActivationOnNonForward = "activation-on-non-forward",
        /// A backward or weight task has candidates.
        CandidatesOnNonForward = "candidates-on-non-forward",
        /// The tasks of a pair have different strategies.
        StrategyMismatch = "strategy-mismatch",
        /// A pair does not use one of its candidates.
        NotACandidate = "not-a-candidate",
    }
    Order {
        /// The order omits a task.
        MissingTask = "missing-task",
        /// The order is empty for a rank that has tasks.
        RankNotCovered = "rank-not-covered",
        /// The order lists a task twice.
        DuplicateTask = "duplicate-task",
        /// The order lists a task on a rank that is not its own.
        WrongRank = "wrong-rank",
        /// Order and dependencies wait for each other.
        OrderDeadlock = "order-deadlock",
        /// A backward runs before its forward, or a weight task before its backward.
        StageOrder = "stage-order",
    }
    Figures {
        /// A task starts before a dependency has arrived.
        BrokenDependency = "broken-dependency",
        /// Two tasks run on a rank at the same time.
        Overlap = "overlap",
        /// A predicted start is not the earliest one.
        StartMismatch = "start-mismatch",
        /// A predicted end is not start plus duration.
        EndMismatch = "end-mismatch",
        /// The predicted makespan is not the end of the last task.
        MakespanMismatch = "makespan-mismatch",
        /// A predicted peak is not the peak of the order.
        PeakMismatch = "peak-mismatch",
        /// The predicted bubble ratio is not the ratio of the order.
        BubbleMismatch = "bubble-mismatch",
        /// The static bytes alone exceed the memory of a rank.
        StaticOverLimit = "static-over-limit",
        /// A rank needs more memory than it has.
        MemoryOverLimit = "memory-over-limit",
        /// The lower bound is above the makespan.
        BoundAboveMakespan = "bound-above-makespan",
    }
}

impl fmt::Display for ViolationCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
