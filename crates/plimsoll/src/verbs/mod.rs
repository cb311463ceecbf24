//! A file per verb.

pub mod check;
pub mod completions;
pub mod events;
pub mod export;
pub mod incidents;
pub mod init;
pub mod logs;
pub mod order;
mod post_mortem;
pub mod reach;
pub mod reload;
pub mod run;
pub mod sample_service;
pub mod status;
pub mod sweep;
mod table;
pub mod upgrade;
pub mod vault;
