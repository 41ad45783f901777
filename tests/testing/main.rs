//! The virtual fleet, from outside.
#![allow(missing_docs)]

mod chaos;
mod faults;
mod load;
mod network;
