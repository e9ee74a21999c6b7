//! The name of a systemd instance as a proxy's id. Pure.

/// The id that an instance's name stands for: `web\x2dsidecar\x2dproxy` and `web-sidecar-proxy` are the same. Unlike
/// systemd's own `%I` a hyphen stays one, since nearly every proxy's id has some; a slash is written `\x2f`.
pub fn unescape(name: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some(at) = rest.find('\\') {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        let code = rest[at..].strip_prefix("\\x").and_then(|code| code.get(..2));
        let byte = code.and_then(|code| u8::from_str_radix(code, 16).ok()).ok_or_else(|| {
            format!(
                "`{name}` is no instance's name; `systemd-escape ID` makes one, and a slash is written \\x2f"
            )
        })?;
        bytes.push(byte);
        rest = &rest[at + "\\x00".len()..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8(bytes).map_err(|_| format!("`{name}` does not stand for UTF-8 text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_and_plain_names_are_the_same_id() {
        for (name, id) in [
            ("web-sidecar-proxy", "web-sidecar-proxy"),
            (r"web\x2dsidecar\x2dproxy", "web-sidecar-proxy"),
            (r"web\x202\x2fproxy", "web 2/proxy"),
            (r"gr\xc3\xbcn", "grün"),
            ("", ""),
        ] {
            assert_eq!(unescape(name).as_deref(), Ok(id));
        }
    }

    #[test]
    fn what_systemd_does_not_write_is_refused() {
        for name in [r"a\", r"a\x", r"a\x2", r"a\xzz", r"a\n", r"\xff", "a\\x2\u{fc}"] {
            assert!(unescape(name).is_err(), "{name}");
        }
    }
}
