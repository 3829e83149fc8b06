//! `coracle image`: what is on this machine, with or without a registry.

use crate::machine;
use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use coracle_node::images::{self, credentials::Keyring};
use std::{collections::BTreeMap, fs, path::PathBuf};

/// Flags of `coracle image`.
#[derive(Args)]
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
    Import {
        /// A component or preview-1 module (.wasm), or an archive of `docker save` or of an OCI image layout (.tar, .tar.gz).
        file: PathBuf,
        /// Its name, such as `hello:v1`; images in archives may have names of their own.
        #[arg(long)]
        name: Option<String>,
    },
    /// Push an imported image to the registry in its name.
    Push {
        /// Its name, such as `127.0.0.1:5000/team/hello:v1`.
        name: String,
        /// A Docker config.json with the registry's credentials.
        #[arg(long)]
        credentials: Option<PathBuf>,
    },
    /// List the images on this machine.
    List,
    /// Remove an image's name; its content goes when no pod uses it.
    Rm {
        /// Its name, such as `hello:v1`.
        name: String,
    },
}

/// Carries the action out.
pub fn run(options: Options) -> Result<()> {
    let data = options.data_dir;
    match options.action {
        Action::Import { file, name } => {
            for named in images::import(&data, &file, name.as_deref())? {
                println!("{} {} ({} bytes)", named.reference, named.manifest, named.size);
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
            println!("{}", runtime.block_on(images::push(options, &name, &keyring))?);
        }
        Action::List => {
            let list = images::list(&data)?;
            let width = list.iter().map(|named| named.reference.len()).max().unwrap_or(0).max(5);
            println!("{:width$}  {:<19}  {:<9}  SIZE", "IMAGE", "ID", "KIND");
            for named in list {
                let id: String = named.manifest.chars().take(19).collect();
                let kind = if named.wasm.is_empty() { "container" } else { "wasm" };
                println!("{:width$}  {id:<19}  {kind:<9}  {}", named.reference, named.size);
            }
        }
        Action::Rm { name } => {
            images::remove(&data, &name)?;
            println!("removed {name}");
        }
    }
    Ok(())
}
