//! Writes down what came out.
