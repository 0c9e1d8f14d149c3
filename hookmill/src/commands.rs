//! Commands that do one thing and end: a file for each, with its arguments and `run`. `dev` and `serve` are in `run`.

pub mod backup;
pub mod check;
pub mod counts;
pub mod dead_letters;
pub mod email;
pub mod events;
pub mod explain;
pub mod import;
pub mod init;
pub mod migrate;
pub mod reconcile;
pub mod rejections;
pub mod replays;
pub mod reprocess;
pub mod schema;
pub mod secret;
pub mod send;
pub mod stats;
pub mod tail;
pub mod test;
pub mod token;
pub mod verify;
pub mod verify_data;
