//! `coracle image`: what is on this machine, with or without a registry.

use crate::machine;
use anyhow::{Context, Result, anyhow, ensure};
use clap::{Args, Subcommand};
use coracle_node::images::{self, collect::size, credentials::Keyring, store::LARGEST};
use coracle_runtime_wasm::classify;
use std::{
    collections::BTreeMap,
    fs,
    io::Read,
    path::{Path, PathBuf},
};

const EXAMPLES: &str = "\
Examples:
  coracle image import hello.wasm --name hello:v1     make a component known, with no registry
  coracle image list                                  what is on this machine
  coracle image rm hello:v1                           forget it";

const IMPORTS: &str = "\
Examples:
  coracle image import hello.wasm --name hello:v1     a component, which has no name of its own
  coracle image import saved.tar.gz                   all images of an archive, under the names they have in it";

const PUSHES: &str = "\
Example:
  coracle image import hello.wasm --name 127.0.0.1:5000/team/hello:v1
  coracle image push 127.0.0.1:5000/team/hello:v1 --credentials ~/.docker/config.json";

const LISTS: &str = "\
Example:
  coracle image list --data-dir /var/lib/coracle";

const REMOVES: &str = "\
Example:
  coracle image rm hello:v1";

/// Flags of `coracle image`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Options {
    #[command(subcommand)]
    action: Action,
    /// The cluster's data directory.
    #[arg(long, global = true, env = "CORACLE_DATA_DIR", default_value_os_t = machine::default_data_dir())]
    data_dir: PathBuf,
}

#[derive(Subcommand)]
enum Action {
    /// Make the images of a file known, with no registry.
    #[command(after_help = IMPORTS)]
    Import {
        /// A component or preview-1 module (.wasm), or an archive of `docker save` or of an OCI image layout (.tar, .tar.gz).
        file: PathBuf,
        /// Its name, such as `hello:v1`; images in archives may have names of their own.
        #[arg(long)]
        name: Option<String>,
    },
    /// Push an imported image to the registry in its name.
    #[command(after_help = PUSHES)]
    Push {
        /// Its name, such as `127.0.0.1:5000/team/hello:v1`.
        name: String,
        /// A Docker config.json with the registry's credentials.
        #[arg(long)]
        credentials: Option<PathBuf>,
    },
    /// List the images on this machine.
    #[command(visible_alias = "ls", after_help = LISTS)]
    List,
    /// Remove an image's name; its content goes when no pod uses it.
    #[command(after_help = REMOVES)]
    Rm {
        /// Its name, such as `hello:v1`.
        name: String,
    },
}

/// Carries the action out.
pub fn run(options: Options) -> Result<()> {
    let data = options.data_dir;
    if !matches!(options.action, Action::Import { .. }) {
        there(&data)?;
    }
    match options.action {
        Action::Import { file, name } => {
            can_run(&file)?;
            for named in images::import(&data, &file, name.as_deref())? {
                println!("{} {} ({})", named.reference, named.manifest, size(named.size));
                if images::floating(&named.reference) {
                    eprintln!(
                        "note: pods ask a registry for {} nevertheless, unless they say imagePullPolicy: IfNotPresent; a tag of its own spares them that",
                        named.reference
                    );
                }
            }
        }
        Action::Push { name, credentials } => {
            let mut keyring = Keyring::default();
            if let Some(path) = credentials {
                let config = fs::read(&path).with_context(|| format!("cannot read the credentials {}", path.display()))?;
                keyring.add(&BTreeMap::from([(".dockerconfigjson".to_string(), config)]));
            }
            let options = images::Options { data_dir: data, ..images::Options::default() };
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(images::push(options, &name, &keyring))?;
            println!("pushed {name}");
        }
        Action::List => {
            let list = images::list(&data)?;
            let width = list.iter().map(|named| named.reference.len()).max().unwrap_or(0).max(5);
            println!("{:width$}  {:<19}  {:<9}  SIZE", "IMAGE", "ID", "KIND");
            for named in list {
                let id: String = named.manifest.chars().take(19).collect();
                let kind = if named.wasm.is_empty() { "container" } else { "wasm" };
                println!("{:width$}  {id:<19}  {kind:<9}  {}", named.reference, size(named.size));
            }
        }
        Action::Rm { name } => {
            images::remove(&data, &name)?;
            println!("removed {name}");
        }
    }
    Ok(())
}

/// Is it the directory of a cluster? A path that is mistyped is told, not made.
fn there(data: &Path) -> Result<()> {
    let message = || format!("there are no images in {}: no cluster keeps its data there; give its directory with --data-dir", data.display());
    ensure!(data.join("images").is_dir(), message());
    Ok(())
}

/// Refuses a .wasm that no pod could run, before it has a name. What cannot be read, and what is no .wasm, is left to who imports it.
fn can_run(file: &Path) -> Result<()> {
    let mut wasm = Vec::new();
    let Ok(mut source) = fs::File::open(file) else { return Ok(()) };
    if source.by_ref().take(4).read_to_end(&mut wasm).is_err() || wasm != b"\0asm" {
        return Ok(());
    }
    source.take(LARGEST).read_to_end(&mut wasm).with_context(|| format!("cannot read {}", file.display()))?;
    classify::look(&wasm).map(drop).map_err(|why| anyhow!("import {}: {why}", file.display()))
}
