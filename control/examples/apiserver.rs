//! A control plane alone, for trying things by hand: `apiserver DATA-DIR ADDRESS` writes `DATA-DIR/kubeconfig` and serves until Ctrl-C.

use base64::{Engine, engine::general_purpose::STANDARD};
use coracle_control::{Control, Options};
use coracle_link::pki::Authority;
use std::{error::Error, path::PathBuf, time::Duration};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into()))
        .with_writer(std::io::stderr)
        .init();
    let mut arguments = std::env::args().skip(1);
    let (Some(dir), Some(address)) = (arguments.next(), arguments.next()) else {
        return Err("usage: apiserver DATA-DIR ADDRESS".into());
    };
    let dir = PathBuf::from(dir);
    let authority = Authority::open(&dir.join("pki"))?;
    let control = Control::start(Options {
        data_dir: dir.clone(),
        api_addr: address.parse()?,
        link_addr: "127.0.0.1:0".parse()?,
        pod_cidr: "10.244.0.0/16".into(),
        service_cidr: "10.96.0.0/16".into(),
        authority: authority.clone(),
        settings: Default::default(),
    })
    .await?;
    let admin = authority.client("kubernetes-admin", &["system:masters".into()], Duration::from_secs(86_400))?;
    let text = |pem: &str| STANDARD.encode(pem);
    let config = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: coracle\nclusters: [{{name: coracle, cluster: {{server: 'https://{}', certificate-authority-data: {}}}}}]\nusers: [{{name: admin, user: {{client-certificate-data: {}, client-key-data: {}}}}}]\ncontexts: [{{name: coracle, context: {{cluster: coracle, user: admin}}}}]\n",
        control.api_addr(),
        text(authority.ca_pem()),
        text(&admin.cert_pem),
        text(&admin.key_pem)
    );
    std::fs::write(dir.join("kubeconfig"), config)?;
    println!("ready on {}", control.api_addr());
    tokio::signal::ctrl_c().await?;
    for late in control.stop().await {
        eprintln!("late: {late}");
    }
    Ok(())
}
