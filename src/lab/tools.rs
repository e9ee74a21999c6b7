//! Owns where the lab's Consul and Envoy come from: a variable, `.tools/`, `PATH`, in this order. It must not know
//! how they are installed.

use std::{
    ffi::OsString,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use crate::lab::LabError;

/// A program the lab does not bring along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tool {
    name: &'static str,
    variable: &'static str,
}

/// Consul.
pub const CONSUL: Tool = Tool { name: "consul", variable: "CONSUL_BIN" };
/// Envoy.
pub const ENVOY: Tool = Tool { name: "envoy", variable: "ENVOY_BIN" };

impl Tool {
    /// Finds it: what the variable names, then `<root>/.tools/<name>/<name>`, then `PATH`. `environment` looks a
    /// variable up.
    ///
    /// Errors: not found, or the variable names something that cannot be run.
    pub fn find(
        self,
        root: &Path,
        environment: &dyn Fn(&str) -> Option<OsString>,
    ) -> Result<PathBuf, LabError> {
        let Self { name, variable } = self;
        if let Some(path) = environment(variable).filter(|value| !value.is_empty()) {
            let path = PathBuf::from(path);
            return if is_program(&path) { Ok(path) } else { Err(LabError::BadTool { variable, path }) };
        }
        let own = root.join(".tools").join(name).join(name);
        let path = environment("PATH").unwrap_or_default();
        let on_path = std::env::split_paths(&path).map(|dir| dir.join(name));
        std::iter::once(own.clone())
            .chain(on_path)
            .find(|candidate| is_program(candidate))
            .ok_or(LabError::NoTool { tool: name, variable, looked_at: own })
    }
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn program(path: &Path) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn the_variable_goes_before_the_tools_folder_before_path() {
        let dir = tempfile::tempdir().unwrap();
        let (named, own, on_path) =
            (dir.path().join("x/my"), dir.path().join(".tools/envoy/envoy"), dir.path().join("bin/envoy"));
        let with = |name: &str, with_variable: bool| match name {
            "ENVOY_BIN" if with_variable => Some(named.clone().into_os_string()),
            "PATH" => Some(dir.path().join("bin").into_os_string()),
            _ => None,
        };
        let find = |with_variable: bool| ENVOY.find(dir.path(), &|name| with(name, with_variable));
        assert!(find(false).unwrap_err().to_string().contains("`make tools`"));
        program(&on_path);
        assert_eq!(find(false).unwrap(), on_path);
        program(&own);
        assert_eq!(find(false).unwrap(), own);
        assert!(matches!(find(true), Err(LabError::BadTool { variable: "ENVOY_BIN", .. })));
        program(&named);
        assert_eq!(find(true).unwrap(), named);
    }
}
