//! Thousands of interleavings, step by step: folds, unfolds, allocations and frees
//! under the eyes of other CPUs. A failure prints its seed and how to replay it.

mod bites;
mod folding;
mod hwpoison;
mod itself;
mod pools;
mod references;
mod story;
mod walks;
