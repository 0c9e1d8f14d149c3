//! `hookmill init`: writes a configuration for some providers, ready for `check`. It asks nothing; its texts about a
//! provider come from docs/providers.md.

mod provider;
mod text;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::{fs, io};

use anyhow::{Context as _, bail};
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::error::ErrorKind;
use hookmill_config::scheme_names;

use self::provider::Provider;
use crate::list::{note, print_line};
use crate::run::dev::program;

/// The configurations of the Workers: those of a clone of Hookmill, which builds them.
const WORKERS: [(&str, &str); 3] = [
    ("ingress/worker/wrangler.toml", include_str!("../../../ingress/worker/wrangler.toml")),
    ("consumers/worker/wrangler.toml", include_str!("../../../consumers/worker/wrangler.toml")),
    ("dlq/worker/wrangler.toml", include_str!("../../../dlq/worker/wrangler.toml")),
];

/// Write hookmill.toml, .env.example and the Workers' wrangler.toml for these providers, ready for `check`
///
/// Existing files with the same content stay. If an existing file has other content, the command writes nothing.
#[derive(clap::Args)]
#[command(override_usage = "hookmill init [OPTIONS] <PROVIDER>...")]
pub struct Arguments {
    /// The providers.
    #[arg(value_name = "PROVIDER", value_parser = Providers)]
    providers: Vec<Provider>,
    /// The folder to write into, created if missing.
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    into: PathBuf,
    /// Replace files that have other content.
    #[arg(long)]
    force: bool,
}

/// Reads the name of a provider.
#[derive(Clone)]
struct Providers;

impl TypedValueParser for Providers {
    type Value = Provider;

    fn parse_ref(
        &self,
        command: &clap::Command,
        argument: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<Provider, clap::Error> {
        let providers = provider::all();
        let find = |name: &str| providers.iter().find(|provider| provider.scheme == name).cloned();
        let name = value.to_string_lossy();
        if let Some(instead) = instead(&name).filter(|_| find(&name).is_none()) {
            return Err(usage(&instead).with_cmd(command));
        }
        let names = PossibleValuesParser::new(providers.iter().map(|p| p.scheme));
        let name = names.parse_ref(command, argument, value)?;
        find(&name).ok_or_else(|| clap::Error::new(ErrorKind::InvalidValue).with_cmd(command))
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        let names = provider::all().into_iter().map(|provider| provider.scheme);
        Some(Box::new(names.map(PossibleValue::new)))
    }
}

/// A suggestion for a known name that is not a provider's.
fn instead(name: &str) -> Option<String> {
    if name == "paypal" {
        return Some(
            "PayPal is not supported; docs/providers.md#paypal describes an alternative".to_owned(),
        );
    }
    scheme_names().find(|scheme| *scheme == name).map(|_| {
        format!(
            "`{name}` is a signature scheme, not a provider; describe the provider in hookmill.toml: \
             docs/providers.md#any-other-provider"
        )
    })
}

/// An invalid command line.
fn usage(problem: &str) -> clap::Error {
    clap::Error::raw(ErrorKind::ValueValidation, format!("{problem}\n"))
}

/// A file to write.
struct File {
    path: PathBuf,
    text: String,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let Arguments { providers, into, force } = arguments;
    let Some(first) = providers.first() else {
        let names: Vec<_> = provider::all().into_iter().map(|provider| provider.scheme).collect();
        usage(&format!("no provider given\n  [possible values: {}]", names.join(", "))).exit()
    };
    for (i, provider) in providers.iter().enumerate() {
        if providers[..i].iter().any(|other| other.scheme == provider.scheme) {
            usage(&format!("`{}` is listed twice", provider.scheme)).exit()
        }
    }
    let own = [
        ("hookmill.toml", text::configuration(providers)),
        (".env.example", text::environment(providers)),
    ];
    let workers = WORKERS.map(|(name, text)| (name, text.to_owned()));
    let files = own.into_iter().chain(workers);
    // Without a dot before each name.
    let folder = if into == Path::new(".") { Path::new("") } else { into };
    let files = files.map(|(name, text)| File { path: folder.join(name), text });
    let written = write(files.collect(), *force)?;
    if written.is_empty() {
        note!("all files already exist with the same content");
    }
    for path in written {
        print_line!("{}", path.display());
    }
    note!("{}", next(into, first, providers));
    Ok(())
}

/// Writes missing files and, with `force`, files with other content; all of them or none, except if the disk fails during
/// the renaming. Returns the written files.
fn write(files: Vec<File>, force: bool) -> anyhow::Result<Vec<PathBuf>> {
    let (mut wanted, mut replaced) = (Vec::new(), Vec::new());
    for file in files {
        match fs::read(&file.path) {
            Ok(found) if found == file.text.as_bytes() => continue,
            Ok(_) => replaced.push(file.path.display().to_string()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", file.path.display()));
            }
        }
        wanted.push(file);
    }
    if !replaced.is_empty() && !force {
        let (has, it) = match replaced.len() {
            1 => ("already exists with", "it"),
            _ => ("already exist with", "them"),
        };
        bail!(
            "{} {has} other content; nothing was written. --force replaces {it}; --into FOLDER writes to another folder, to copy from",
            replaced.join(", ")
        );
    }
    let staged = wanted.into_iter().map(Staged::new).collect::<anyhow::Result<Vec<_>>>()?;
    staged.into_iter().map(Staged::put).collect()
}

/// A file that is written beside its destination, and removed unless it is renamed.
struct Staged {
    temporary: PathBuf,
    path: PathBuf,
}

impl Staged {
    fn new(File { path, text }: File) -> anyhow::Result<Self> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let staged = Self {
            temporary: path.with_file_name(format!(".{name}.{}", std::process::id())),
            path,
        };
        let folder = staged.path.parent().unwrap_or(Path::new("."));
        let written = fs::create_dir_all(folder).and_then(|()| fs::write(&staged.temporary, text));
        written.with_context(|| format!("cannot write {}", staged.path.display()))?;
        Ok(staged)
    }

    fn put(self) -> anyhow::Result<PathBuf> {
        fs::rename(&self.temporary, &self.path)
            .with_context(|| format!("cannot write {}", self.path.display()))?;
        Ok(self.path.clone())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.temporary);
    }
}

/// The next steps for the user.
fn next(into: &Path, first: &Provider, providers: &[Provider]) -> String {
    let program = program();
    let mut text = "\nNext:\n\n".to_owned();
    if into != Path::new(".") {
        text += &format!("  cd {}\n", into.display());
    }
    text += &format!("  {program} check\n  {program} dev\n");
    if let Some((source, kind)) = text::sample(first) {
        text += &format!("  {program} send {source} {kind}    # in another terminal\n");
    }
    let anchors: Vec<_> = providers.iter().map(Provider::anchor).collect();
    text += &format!(
        "\n`serve` needs the secrets that .env.example lists; docs/providers.md{} says where to find them\n\
         The Workers are built in a clone of Hookmill: README.md, \"Deploy to Cloudflare\"",
        anchors.join(", ")
    );
    text
}
