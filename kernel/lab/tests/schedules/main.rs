//! Thousands of interleavings, step by step: references, mappings and folding of the experiments
//! under the eyes of other CPUs. A failure prints its seed and how to replay it.

mod mappings;
mod memdesc;
