use super::*;

#[test]
fn names_that_would_leave_their_folder_are_refused() {
    for good in ["dc1", "us-east_1", "consul", "consul.example.com"] {
        assert_eq!(name(good).as_deref(), Ok(good));
    }
    for bad in ["", "../x", "a/b", ".", "a..b", "a b", "ü", "-\n"] {
        assert!(name(bad).is_err(), "{bad}");
    }
}

#[test]
fn days_are_whole_and_within_reason() {
    assert_eq!((days("1"), days("36500")), (Ok(1), Ok(36_500)));
    for bad in ["0", "-1", "36501", "1.5", "30d", ""] {
        assert!(days(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_ca_is_read_out_of_a_bundle_by_its_key() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let make = || {
        let request = authority::NewAuthority { lifetime: lifetime::DAY, constraints: Vec::new() };
        Authority::create(&request, now()).unwrap().1
    };
    let (one, two) = (make(), make());
    fs::write(path("ca.pem"), format!("{}{}", one.pem(), two.pem())).unwrap();
    fs::write(path("key.pem"), two.key.expose()).unwrap();
    let found = authority(&path("ca.pem"), &path("key.pem")).unwrap();
    assert_eq!(*found.certificate(), two.certificate);
    fs::write(path("key.pem"), make().key.expose()).unwrap();
    let error = format!("{:#}", authority(&path("ca.pem"), &path("key.pem")).unwrap_err());
    assert!(error.contains("does not belong to the CA"), "{error}");
    let error = format!("{:#}", authority(&path("ca.pem"), &path("ca.pem")).unwrap_err());
    assert!(error.contains("no private key"), "{error}");
    let error = format!("{:#}", authority(&path("none.pem"), &path("key.pem")).unwrap_err());
    assert!(error.contains("causeway tls ca create"), "{error}");
}
