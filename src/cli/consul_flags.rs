//! The flags that all of Consul's own tools have, laid over the `CONSUL_*` environment.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::Context;
use clap::Args;

use crate::{
    config::consul::{ConsulAddress, ConsulSettings},
    model::secret::SecretText,
};

/// How to reach the local Consul agent.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Consul (each also by its CONSUL_* variable)")]
pub struct ConsulFlags {
    /// The local Consul agent [env: CONSUL_HTTP_ADDR] [default: http://127.0.0.1:8500]
    #[arg(long, value_name = "ADDRESS")]
    pub http_addr: Option<String>,
    /// ACL token; others on this machine can see it in the list of processes, prefer --token-file
    /// [env: CONSUL_HTTP_TOKEN]
    #[arg(long, value_name = "TOKEN")]
    pub token: Option<String>,
    /// File that holds the ACL token [env: CONSUL_HTTP_TOKEN_FILE]
    #[arg(long, value_name = "FILE", conflicts_with = "token")]
    pub token_file: Option<PathBuf>,
    /// CA certificates to trust, PEM [env: CONSUL_CACERT]
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// Folder of CA certificates to trust, PEM [env: CONSUL_CAPATH]
    #[arg(long, value_name = "DIR")]
    pub ca_path: Option<PathBuf>,
    /// Client certificate, PEM [env: CONSUL_CLIENT_CERT]
    #[arg(long, value_name = "FILE")]
    pub client_cert: Option<PathBuf>,
    /// Key of the client certificate, PEM [env: CONSUL_CLIENT_KEY]
    #[arg(long, value_name = "FILE")]
    pub client_key: Option<PathBuf>,
    /// Server name to send and to verify [env: CONSUL_TLS_SERVER_NAME]
    #[arg(long, value_name = "NAME")]
    pub tls_server_name: Option<String>,
}

impl ConsulFlags {
    /// The environment's settings with these flags laid over them, or every problem found.
    pub fn settings(&self, env: &dyn Fn(&str) -> Option<String>) -> Result<ConsulSettings, Vec<String>> {
        let mut settings = ConsulSettings::from_env(env)?;
        if let Some(address) = &self.http_addr {
            settings.address =
                ConsulAddress::parse(address).map_err(|problem| vec![format!("--http-addr: {problem}")])?;
        }
        // A flag of either form hides both forms of the environment.
        if self.token.is_some() || self.token_file.is_some() {
            settings.token = self.token.as_ref().map(Into::into);
            settings.token_file = self.token_file.clone();
        }
        let tls = &mut settings.tls;
        tls.ca_file = self.ca_file.clone().or(tls.ca_file.take());
        tls.ca_path = self.ca_path.clone().or(tls.ca_path.take());
        tls.cert_file = self.client_cert.clone().or(tls.cert_file.take());
        tls.key_file = self.client_key.clone().or(tls.key_file.take());
        tls.server_name = self.tls_server_name.clone().or(tls.server_name.take());
        Ok(settings)
    }
}

/// The credential that systemd hands an Envoy's unit (`LoadCredential=`, systemd.exec(5)).
const TOKEN_CREDENTIAL: &str = "consul-token";

/// These settings with the token that systemd handed over, where neither flag nor variable names one. An empty
/// credential counts as none: units have one in place of a file that is not there.
pub fn with_credential(
    mut settings: ConsulSettings,
    env: &dyn Fn(&str) -> Option<String>,
) -> anyhow::Result<ConsulSettings> {
    if settings.token.is_some() || settings.token_file.is_some() {
        return Ok(settings);
    }
    let Some(folder) = env("CREDENTIALS_DIRECTORY") else { return Ok(settings) };
    let path = Path::new(&folder).join(TOKEN_CREDENTIAL);
    let text = match fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(settings),
        read => read.with_context(|| format!("read the credential {}", path.display()))?,
    };
    settings.token = Some(text.trim()).filter(|token| !token.is_empty()).map(SecretText::from);
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(name: &str) -> Option<String> {
        match name {
            "CONSUL_HTTP_ADDR" => Some("127.0.0.9:8500".into()),
            "CONSUL_HTTP_TOKEN" => Some("from-env".into()),
            _ => None,
        }
    }

    #[test]
    fn flags_win_over_the_environment() {
        let flags =
            ConsulFlags { token_file: Some("/t".into()), ca_file: Some("/ca".into()), ..Default::default() };
        let settings = flags.settings(&env).unwrap();
        assert_eq!(settings.address, ConsulAddress::Http { authority: "127.0.0.9:8500".into() });
        assert_eq!((settings.token, settings.token_file), (None, Some("/t".into())));
        assert_eq!(settings.tls.ca_file, Some("/ca".into()));
    }

    #[test]
    fn a_credential_is_used_where_nothing_else_gives_a_token_and_an_empty_one_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let env = |name: &str| (name == "CREDENTIALS_DIRECTORY").then(|| folder.path().display().to_string());
        let token = |given: ConsulSettings| with_credential(given, &env).unwrap().token;
        assert_eq!(token(ConsulSettings::default()), None, "there is none");
        fs::write(folder.path().join("consul-token"), "").unwrap();
        assert_eq!(token(ConsulSettings::default()), None, "it is empty");
        fs::write(folder.path().join("consul-token"), "of-systemd\n").unwrap();
        assert_eq!(token(ConsulSettings::default()), Some("of-systemd".into()));
        let given = ConsulSettings { token: Some("given".into()), ..Default::default() };
        assert_eq!(token(given), Some("given".into()));
        assert_eq!(with_credential(ConsulSettings::default(), &|_| None).unwrap().token, None);
    }
}
