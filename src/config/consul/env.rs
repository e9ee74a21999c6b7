//! Consul's own environment variables.

use std::path::PathBuf;

use crate::{
    config::consul::{ConsulAddress, ConsulSettings},
    model::secret::SecretText,
};

type Environment<'a> = dyn Fn(&str) -> Option<String> + 'a;

impl ConsulSettings {
    /// The settings that Consul's own variables ask for, defaults where they are silent. An empty variable counts as
    /// not set. All problems at once, each naming its variable and the remedy.
    pub fn from_env(env: &dyn Fn(&str) -> Option<String>) -> Result<Self, Vec<String>> {
        let mut settings = Self::default();
        settings.apply_env(env)?;
        Ok(settings)
    }

    /// Lays Consul's own variables over these settings: what a variable says wins.
    pub fn apply_env(&mut self, env: &dyn Fn(&str) -> Option<String>) -> Result<(), Vec<String>> {
        let mut problems = Vec::new();
        self.apply_address(env, &mut problems);
        if let Some(token) = text(env, "CONSUL_HTTP_TOKEN") {
            self.token = Some(SecretText::from(token));
            self.token_file = None;
        } else if let Some(file) = text(env, "CONSUL_HTTP_TOKEN_FILE") {
            self.token = None;
            self.token_file = Some(PathBuf::from(file));
        }
        if let Some(auth) = text(env, "CONSUL_HTTP_AUTH") {
            // As Consul's own client: a user without a password is a user with an empty one.
            let auth = if auth.contains(':') { auth } else { format!("{auth}:") };
            self.http_auth = Some(SecretText::from(auth));
        }
        self.apply_tls(env, &mut problems);
        for variable in ["CONSUL_NAMESPACE", "CONSUL_PARTITION"] {
            if text(env, variable).is_some_and(|value| value != "default") {
                problems.push(format!(
                    "{variable}: namespaces and partitions of Consul Enterprise are not supported; unset it or set it to `default`"
                ));
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }

    fn apply_address(&mut self, env: &Environment<'_>, problems: &mut Vec<String>) {
        if let Some(address) = text(env, "CONSUL_HTTP_ADDR") {
            match ConsulAddress::parse(&address) {
                Ok(address) => self.address = address,
                Err(problem) => problems.push(format!("CONSUL_HTTP_ADDR: {problem}")),
            }
        }
        // As Consul's own client: it turns plain HTTP into HTTPS, and never the other way round.
        if flag(env, "CONSUL_HTTP_SSL", problems) == Some(true)
            && let ConsulAddress::Http { authority } = &self.address
        {
            self.address = ConsulAddress::Https { authority: authority.clone() };
        }
    }

    fn apply_tls(&mut self, env: &Environment<'_>, problems: &mut Vec<String>) {
        if let Some(verify) = flag(env, "CONSUL_HTTP_SSL_VERIFY", problems) {
            self.tls.verify = verify;
        }
        let file = |variable| text(env, variable).map(PathBuf::from);
        self.tls.server_name = text(env, "CONSUL_TLS_SERVER_NAME").or(self.tls.server_name.take());
        self.tls.ca_file = file("CONSUL_CACERT").or(self.tls.ca_file.take());
        self.tls.ca_path = file("CONSUL_CAPATH").or(self.tls.ca_path.take());
        self.tls.cert_file = file("CONSUL_CLIENT_CERT").or(self.tls.cert_file.take());
        self.tls.key_file = file("CONSUL_CLIENT_KEY").or(self.tls.key_file.take());
    }
}

fn text(env: &Environment<'_>, variable: &str) -> Option<String> {
    env(variable).filter(|value| !value.is_empty())
}

/// A truth value in the spellings that Consul's own tools take.
fn flag(env: &Environment<'_>, variable: &str, problems: &mut Vec<String>) -> Option<bool> {
    let value = text(env, variable)?;
    match value.as_str() {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => {
            problems
                .push(format!("{variable}: `{value}` is neither true nor false; write `true` or `false`"));
            None
        }
    }
}

#[cfg(test)]
mod tests;
