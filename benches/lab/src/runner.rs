//! Runs experiments, several at a time.
