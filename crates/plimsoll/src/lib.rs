//! The one binary's parts: its command line, its configuration, and a file per verb.

mod carry;
pub mod cli;
pub mod config;
pub mod demo;
mod fit;
pub mod sample;
mod settings;
mod vaults;
pub mod verbs;
