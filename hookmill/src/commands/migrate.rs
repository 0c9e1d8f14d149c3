//! `hookmill migrate`: applies migrations without serving.

use std::path::PathBuf;

use hookmill_native::{DataFolder, Opened};
use serde_json::json;

use crate::list::{note, print_line};
use crate::run::pipeline::{load, open_store};

/// Apply pending migrations to the database
#[derive(clap::Args)]
pub struct Arguments {
    /// The configuration, which can name your own migrations.
    #[arg(long, value_name = "FILE", default_value = "hookmill.toml")]
    config: PathBuf,
    /// The data folder.
    #[arg(long, value_name = "FOLDER", default_value = ".hookmill")]
    data: PathBuf,
    /// Print {"applied":[…]}.
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let loaded = load(&arguments.config)?;
    let folder = DataFolder::lock(&arguments.data)?;
    let Opened { applied, .. } = open_store(&folder, &loaded)?;
    if arguments.json {
        print_line!("{}", json!({ "applied": applied }));
    } else if applied.is_empty() {
        note!("the database is up to date");
    } else {
        for name in applied {
            print_line!("{name}");
        }
    }
    Ok(())
}
