//! Identifiers. Each is a dense index, so that tables can be vectors, and has its own type, so that a rank cannot be passed
//! for a microbatch.

use serde::{Deserialize, Serialize};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
        )]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        #[serde(transparent)]
        pub struct $name(pub u32);

        impl $name {
            /// The identifier as an index into a table.
            pub const fn index(self) -> usize {
                self.0 as usize
            }
        }

        impl From<usize> for $name {
            /// # Panics
            /// If the index does not fit in 32 bits. Readers bound all tables far below that.
            fn from(index: usize) -> Self {
                Self(u32::try_from(index).expect("identifiers are bounded to 32 bits by the readers"))
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id!(
    /// One of the `P` pipeline positions.
    RankId
);
id!(
    /// A task of a [`TaskGraph`](crate::TaskGraph): its index in `tasks`.
    TaskId
);
id!(
    /// A module of a [`ModelSpec`](crate::ModelSpec): its index in `modules`.
    ModuleId
);
id!(
    /// A pipeline segment of a module: `0..K_i`.
    SegmentId
);
id!(
    /// A microbatch of one batch.
    MicrobatchId
);
id!(
    /// A slice of the instances of one module in one microbatch.
    SubMicrobatchId
);
