//! Files of a user. Inputs are regular files of bounded size, so that no file hangs the reader or takes all memory. Outputs appear
//! whole or not at all: they are written under a temporary name and renamed.
//!
//! | to read | |
//! |---|---|
//! | [`open`], [`read`], [`read_text`] | a file of a [`Kind`] |
//! | [`read_input`] | the same, or standard input if the path is `-` |
//!
//! | to write | |
//! |---|---|
//! | [`write_whole`] | a file |
//! | [`partial_folder`], [`put_in_place`] | a folder |
//! | [`remove_partial`] | nothing: removes what killed processes have left |

mod input;
mod kind;
mod output;

pub use input::{open, read, read_input, read_text};
pub use kind::Kind;
pub use output::{
    parent, partial_folder, partial_path, put_in_place, remove_partial, sync_folder, write_synced,
    write_whole,
};

/// The Rust of the README compiles and runs.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
