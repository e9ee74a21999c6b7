//! `causeway demo`, hidden: the lab's two services.

use std::{net::SocketAddr, process::ExitCode};

use clap::Subcommand;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    lab::demo::{
        counting,
        dashboard::{self, DashboardOptions},
    },
    lifecycle::{self, Stop},
};

/// The lab's demo services.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  causeway demo counting --listen 127.2.0.20:9001 --name one --datacenter secondary"
)]
pub struct Args {
    #[command(subcommand)]
    service: Service,
}

#[derive(Debug, Subcommand)]
enum Service {
    /// Count the requests
    Counting {
        /// Where to listen
        #[arg(long, value_name = "ADDRESS:PORT")]
        listen: SocketAddr,
        /// The instance's name, told with each count
        #[arg(long)]
        name: String,
        /// The datacenter, told with each count
        #[arg(long)]
        datacenter: String,
    },
    /// Show the count on a page
    Dashboard {
        /// Where to listen
        #[arg(long, value_name = "ADDRESS:PORT")]
        listen: SocketAddr,
        /// Where the counter is reached
        #[arg(long, value_name = "URL")]
        counting: String,
        /// The dashboard's own datacenter
        #[arg(long)]
        datacenter: String,
        /// Admin interface of the dashboard's Envoy, to show which gateway it uses
        #[arg(long, value_name = "URL")]
        envoy_admin: Option<String>,
    },
}

/// Runs a demo service until SIGTERM or SIGINT.
///
/// Errors: the address cannot be listened on.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let (source, stop) = Stop::pair();
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let _signals = lifecycle::spawn("demo.signals", async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        source.stop();
    });
    match args.service {
        Service::Counting { listen, name, datacenter } => {
            counting::run(listen, name, datacenter, stop).await?;
        }
        Service::Dashboard { listen, counting, datacenter, envoy_admin } => {
            let options = DashboardOptions { listen, counting, datacenter, envoy_admin };
            dashboard::run(options, stop).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
