use super::*;

fn files() -> ClientFiles {
    ClientFiles { ca_file: None, ca_path: None, cert_file: None, key_file: None, verify: true }
}

#[test]
fn errors_name_the_file_and_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let missing = ClientFiles { ca_file: Some(folder.path().join("ca.pem")), ..files() };
    let text = client_config(&missing, &[]).unwrap_err().to_string();
    assert!(text.contains("ca.pem") && text.contains("may read it"), "{text}");

    let empty = ClientFiles { ca_path: Some(folder.path().to_owned()), ..files() };
    assert!(client_config(&empty, &[]).unwrap_err().to_string().contains("no .pem"));

    fs::write(folder.path().join("bad.pem"), "hello").unwrap();
    let text = client_config(&empty, &[]).unwrap_err().to_string();
    assert!(text.contains("bad.pem") && text.contains("no certificate"), "{text}");

    let half = ClientFiles { cert_file: Some("x.pem".into()), verify: false, ..files() };
    assert!(client_config(&half, &[]).unwrap_err().to_string().contains("give the key"));
}

#[test]
fn a_key_file_is_never_quoted() {
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["a.test".into()]).unwrap();
    let (cert, key) = (folder.path().join("c.pem"), folder.path().join("k.pem"));
    fs::write(&cert, made.cert.pem()).unwrap();
    fs::write(&key, "-----BEGIN PRIVATE KEY-----\nhush-hush\n").unwrap();
    let both = ClientFiles { cert_file: Some(cert), key_file: Some(key.clone()), verify: false, ..files() };
    assert!(!client_config(&both, &[]).unwrap_err().to_string().contains("hush"));
    fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    assert_eq!(client_config(&both, &[b"h2"]).unwrap().alpn_protocols, vec![b"h2".to_vec()]);
}

#[test]
fn server_names_may_be_bracketed_addresses() {
    assert!(server_name("[::1]").is_ok());
    assert!(server_name("consul.test").is_ok());
    assert!(server_name("not a name").is_err());
}
