//! The machine's side of starting Envoy: where the binary is, a bootstrap file that only this user can read, and the
//! replacement of this process.

use std::{
    ffi::OsString,
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write},
    os::unix::{
        fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, anyhow, bail};

use crate::{envoy::bootstrap, model::secret::SecretText};

const HOW_TO_GET_ENVOY: &str = "install Envoy 1.36 or later (https://www.envoyproxy.io), or name it with `--envoy-binary FILE` or ENVOY_BIN";

/// The Envoy to start: the one given, else `ENVOY_BIN`, else the first on `PATH`.
pub(super) fn find_envoy(
    given: Option<&Path>,
    env: &dyn Fn(&str) -> Option<String>,
) -> anyhow::Result<PathBuf> {
    let named = given.map(Path::to_path_buf).or_else(|| env("ENVOY_BIN").map(PathBuf::from));
    if let Some(path) = named {
        if is_executable(&path) {
            return Ok(path);
        }
        bail!("{} is not an executable file; {HOW_TO_GET_ENVOY}", path.display());
    }
    let folders = env("PATH").unwrap_or_default();
    std::env::split_paths(&folders)
        .map(|folder| folder.join("envoy"))
        .find(|path| is_executable(path))
        .ok_or_else(|| anyhow!("there is no `envoy` on PATH; {HOW_TO_GET_ENVOY}"))
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// Writes the bootstrap for a proxy where only this user can read it, replacing an earlier one in one step. Without
/// a folder given, the first usable of the user's runtime folder, `/run/causeway` and a private folder among the
/// temporary files is taken.
pub(super) fn write_bootstrap(
    given: Option<&Path>,
    env: &dyn Fn(&str) -> Option<String>,
    proxy_id: &str,
    text: &str,
) -> anyhow::Result<PathBuf> {
    let name = file_name(proxy_id);
    if let Some(folder) = given {
        return make_folder(folder)
            .and_then(|()| write_private(folder, &name, text))
            .with_context(|| format!("write the bootstrap into {}", folder.display()));
    }
    if let Some(folder) = env("XDG_RUNTIME_DIR").map(|runtime| Path::new(&runtime).join("causeway"))
        && make_folder(&folder).is_ok()
        && let Ok(file) = write_private(&folder, &name, text)
    {
        return Ok(file);
    }
    if let Ok(file) = write_private(Path::new("/run/causeway"), &name, text) {
        return Ok(file);
    }
    let user = nix::unistd::geteuid().as_raw();
    let temporary = env("TMPDIR").map_or_else(|| PathBuf::from("/tmp"), PathBuf::from);
    let folder = temporary.join(format!("causeway-{user}"));
    make_folder(&folder)
        .and_then(|()| check_private(&folder, user))
        .and_then(|()| write_private(&folder, &name, text))
        .with_context(|| {
            format!("write the bootstrap into {}; name a folder with `--bootstrap-dir`", folder.display())
        })
}

/// The token in a proxy's bootstrap that `write_bootstrap` put into this folder; none if it has none or is not there.
pub(in crate::cli) fn token_in_bootstrap(
    folder: &Path,
    proxy_id: &str,
) -> anyhow::Result<Option<SecretText>> {
    let file = folder.join(file_name(proxy_id));
    let what = || format!("read Envoy's bootstrap {}", file.display());
    let text = match fs::read_to_string(&file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        read => read.with_context(what)?,
    };
    let bootstrap = serde_json::from_str(&text).with_context(what)?;
    Ok(bootstrap::token(&bootstrap))
}

/// A file name for a proxy's bootstrap: the id as it is where it can be a file name, else with a hash, so that no two
/// ids share a file.
fn file_name(proxy_id: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if proxy_id.len() <= 200 && proxy_id.chars().all(is_plain) {
        return format!("{proxy_id}.json");
    }
    let plain: String = proxy_id.chars().take(100).map(|c| if is_plain(c) { c } else { '_' }).collect();
    let hash = blake3::hash(proxy_id.as_bytes()).to_hex();
    format!("{plain}~{}.json", &hash.as_str()[..8])
}

fn make_folder(folder: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).recursive(true).create(folder) {
        Err(_) if folder.is_dir() => Ok(()),
        done => done,
    }
}

/// A folder among the temporary files may have been made by another user, to read or replace what is put there.
fn check_private(folder: &Path, user: u32) -> io::Result<()> {
    let found = fs::symlink_metadata(folder)?;
    if found.is_dir() && found.uid() == user && found.permissions().mode() & 0o077 == 0 {
        return Ok(());
    }
    Err(io::Error::other("the folder is not this user's own and private; remove it"))
}

fn write_private(folder: &Path, name: &str, text: &str) -> io::Result<PathBuf> {
    let file = folder.join(name);
    let draft = folder.join(format!(".{name}.{}", std::process::id()));
    // A draft with this process's id can only be left over from a process that is gone.
    let _ = fs::remove_file(&draft);
    let mut writing = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    let done = writing.write_all(text.as_bytes()).and_then(|()| fs::rename(&draft, &file));
    if done.is_err() {
        let _ = fs::remove_file(&draft);
    }
    done.map(|()| file)
}

/// Becomes Envoy; returns only when that is impossible.
pub(super) fn exec(binary: &Path, bootstrap: &Path, envoy_args: &[OsString]) -> anyhow::Error {
    let error = Command::new(binary)
        .arg("--config-path")
        .arg(bootstrap)
        // With hot restart Envoy dies with the thread that started it and shares memory with other Envoys of the same
        // number; xDS makes it needless.
        .arg("--disable-hot-restart")
        .args(envoy_args)
        // Envoy needs the token only in its bootstrap; its environment can be read by others of the same user.
        .env_remove("CONSUL_HTTP_TOKEN")
        .env_remove("CONSUL_HTTP_AUTH")
        .exec();
    anyhow!("start {}: {error}; {HOW_TO_GET_ENVOY}", binary.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn no_env(_: &str) -> Option<String> {
        None
    }

    #[test]
    fn file_names_are_safe_and_distinct() {
        assert_eq!(file_name("web-1.a_b"), "web-1.a_b.json");
        assert_eq!(file_name("a/b").len(), "a_b~12345678.json".len());
        assert_ne!(file_name("a/b"), file_name("a:b"));
        assert!(!file_name("../../etc/passwd").contains('/'));
        assert!(file_name(&"x".repeat(500)).len() < 255);
    }

    #[test]
    fn only_the_user_can_read_the_bootstrap_and_it_is_replaced() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("new/folder");
        write_bootstrap(Some(&folder), &no_env, "web", "old").unwrap();
        let file = write_bootstrap(Some(&folder), &no_env, "web", "new").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "new");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "no draft is left");
    }

    #[test]
    fn the_token_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let token = |id: &str| token_in_bootstrap(folder.path(), id);
        assert_eq!(token("a/b").unwrap(), None, "there is no bootstrap");
        let text = r#"{"dynamic_resources": {"ads_config": {"grpc_services": [
            {"initial_metadata": [{"key": "x-consul-token", "value": "of-a-b"}]}]}}}"#;
        write_bootstrap(Some(folder.path()), &no_env, "a/b", text).unwrap();
        write_bootstrap(Some(folder.path()), &no_env, "c", "{}").unwrap();
        write_bootstrap(Some(folder.path()), &no_env, "d", "{").unwrap();
        assert_eq!(token("a/b").unwrap(), Some("of-a-b".into()));
        assert_eq!(token("c").unwrap(), None, "it has none");
        assert!(token("d").is_err());
    }

    #[test]
    fn the_runtime_folder_comes_first() {
        let root = tempfile::tempdir().unwrap();
        let runtime = root.path().to_str().unwrap().to_owned();
        let env = move |name: &str| (name == "XDG_RUNTIME_DIR").then(|| runtime.clone());
        let file = write_bootstrap(None, &env, "web", "{}").unwrap();
        assert_eq!(file, root.path().join("causeway/web.json"));
    }

    #[test]
    fn a_shared_folder_among_temporary_files_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let user = nix::unistd::geteuid().as_raw();
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
        assert!(check_private(root.path(), user).is_err());
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o700)).unwrap();
        check_private(root.path(), user).unwrap();
        assert!(check_private(root.path(), user + 1).is_err());
    }

    #[test]
    fn a_missing_envoy_is_told_with_its_remedy() {
        for error in [
            find_envoy(None, &no_env).unwrap_err(),
            find_envoy(Some(Path::new("/nowhere/envoy")), &no_env).unwrap_err(),
        ] {
            assert!(error.to_string().contains("--envoy-binary FILE"), "{error}");
        }
    }

    #[test]
    fn envoy_bin_wins_over_path() {
        let env = |name: &str| Some(if name == "ENVOY_BIN" { "/bin/sh" } else { "/usr/bin" }.to_owned());
        assert_eq!(find_envoy(None, &env).unwrap(), Path::new("/bin/sh"));
        assert_eq!(find_envoy(Some(Path::new("/bin/cat")), &env).unwrap(), Path::new("/bin/cat"));
    }
}
