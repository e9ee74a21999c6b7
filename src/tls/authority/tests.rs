use super::*;
use crate::tls::x509::{
    lifetime::DAY,
    pem::Contents,
    profile::{self, Place},
};

const NOW: Moment = Moment::from_unix(1_800_000_000);

/// An RSA key of 2048 bits, PKCS#8, made for this test and used nowhere else: the provider makes none.
const RSA: &str = "\
    MIIEvwIBADANBgkqhkiG9w0BAQEFAASCBKkwggSlAgEAAoIBAQDTX0ubAYEG+ZRSP9Ygj49xbHEDCK0rJAq9QM1E/1NUSHdG\
    2nUDx+N9SU0SxX1qajLAxalPRQ9RfRcNGuG6+U/Yi4mSv9o3E5/ihaUqhZxhNI1YznqTF9YCu+sJJCbfr3v6K31C9+NI6SI1\
    reZkuAUtKgHuco6Nfo0HWROwZZFTIYY+H89oBpj+bVgBeQx7/eIoAV1Uw0FaEGzc59inIvfScUpRWI/C0azAU/XNAnPdEaEV\
    yF+vIQQfu6V5sBgbR2at+NyZZAnVtIF8A/Sre8dKngokvJA6SXtsCraiDrNxlg0tv/McuJIOQ/Gy5Jf2gki6ZeUfUQQh4hm2\
    KecNvL+lAgMBAAECggEAELLbHLxSLrRh8NuFNZ5R1UKdbQFu+NUImin37YcEVMjCz5CrpOhSQxAa7Cw4+8K3Dr6u4QnSK3xn\
    6Uuh4K0Yj0F61WKdwTMmMvWe9kyG7bECp6zsRxmfeSjSaS73eT16XGm6JCPES3rLjpUV+ggFtKs4ateXBnukdZumcA2eHQSI\
    pQCSODzl4+zv59P1BhAQ+x3TxXn2B18s6cicqgWrEnYNjFJQ6SJHSo3JWKKw0NM6UmpqSY+BzHUwVX/8NW3AY8C1H5OTGS8Z\
    EG65/TYWKOIlgpPQaotMYwWXpK37lZxJHSGgeU/tF5eKWJ7S2fYH4xERwXThE/xJLZ2KUpfU8QKBgQD6ePFKC8i7ai3SypCt\
    cMrykFF1gjdbFzt6XDNgCeK3vrVjoZQeIPTf6Ri1Dt982fLm1X9hbv5gFXaoT/ULxGY00WTPAxn7fGuL/Af05Jn35waaT8UX\
    cJB0UhRV/mweWw7IST+BmQX6wwJTrYKQrWd9LfjflmNPGodZ2Sh6pxWgTQKBgQDYCXRGxdM0+zmrZb0W+iLW6Rt6YuOKOl3e\
    zRIyORvnXetqwnbUM+mvKFEjGr6k2+iBD6tUIx8WdPjHuonXJCBrN6A/UH0AC+Tx3T9YwXbRcUXIv0TnDoO0fPn6kmW6RAx2\
    Sr3S5hj4k1cUTz6znGzB2kEGTMwO7QgrMBx/Wz+IuQKBgQC6nu45G3qemUg3LJKLh+TOwlTPVwxjpHW+f4AP6I2yFjgUWcmA\
    gVGym3y7Oq+t2L4w25YjRI3njVZxpdGQyO7WH8Yar9bmGBgRnuFWyBUoLkwvIYxaIJag9J8OS5jHLVVgSaM1roxUAIR1UGxd\
    27WmAWDTRrwLrlp2yWRtrpxgaQKBgQCSed6HucuZSZjxWDrb4F9M3aKO2Yuzhh1tWhezS7tapPhgW1ecS1JvO2O/7HtEZgH/\
    t7MPifyjCk4/hX++CjWc3ItfQmBubqIdR0iTEiFQon+RO/Yov1OXRYFsXmRw5YCZl9War/5QU/4fvBckSrQGv8eE0P8uQ5Jd\
    TfKUezbZqQKBgQCwDlSk5siZqH4VJb2rKcu23tgS3SRqOU+ZXy4O6eykJc/LJx+PNbQbuN6as0XqINntamqD1w7GJcRt2iIq\
    UAnlFcXUoLxYjUW7VLdxPijzA3cyr90GhZbxTKn/G3vdM6jq2p9g4BzfgYqOCdN1tvF8mHFfnMk95R0h548KkZmHGA==";

fn place() -> Place {
    Place { datacenter: "dc1".into(), domain: "consul".into(), node: Some("n1".into()) }
}

fn authority(days: u32) -> Authority {
    Authority::create(&NewAuthority { lifetime: DAY * days, constraints: Vec::new() }, NOW).unwrap().0
}

fn server(ca: &Authority, days: u32, now: Moment) -> Issued {
    let profile = profile::named("server").unwrap();
    ca.issue(profile, &profile.issued(&place()), DAY * days, now).unwrap()
}

#[test]
fn a_new_ca_signs_only_leaves_and_has_a_name_of_its_own() {
    let (one, made) =
        Authority::create(&NewAuthority { lifetime: DAY * 100, ..Default::default() }, NOW).unwrap();
    let ca = one.certificate();
    assert!(ca.is_authority() && ca.key_kind == "EC P-256" && ca.subject == ca.issuer, "{}", ca.key_kind);
    assert_eq!(ca.not_after, NOW.plus(DAY * 100));
    assert!(
        made.key.expose().contains("BEGIN EC PRIVATE KEY") && !format!("{one:?} {made:?}").contains("BEGIN")
    );
    assert_ne!(authority(1).certificate().subject, ca.subject);
}

#[test]
fn what_is_issued_is_what_the_profile_says() {
    let ca = authority(1000);
    let issued = server(&ca, 365, NOW);
    let one = &issued.certificate;
    assert_eq!(one.subject, "CN=server.dc1.consul");
    assert_eq!(one.names(), ["server.dc1.consul", "n1.server.dc1.consul", "localhost", "127.0.0.1"]);
    assert_eq!((one.not_before, one.not_after), (NOW.minus(BACKDATE), NOW.plus(DAY * 365)));
    assert!(one.serves(Usage::Server) && one.serves(Usage::Client) && !one.is_authority());
    assert_eq!(one.issuer_raw, ca.certificate().subject_raw);
    let read = Contents::read(issued.key.expose().as_bytes());
    assert_eq!(read.keys[0].public(), one.public_key);
    let agent = profile::named("agent").unwrap();
    let agent = ca.issue(agent, &agent.issued(&place()), DAY, NOW).unwrap().certificate;
    assert!(agent.serves(Usage::Client) && !agent.serves(Usage::Server));
    assert_eq!(agent.names(), ["agent.dc1.consul", "n1.agent.dc1.consul"]);
}

#[test]
fn nothing_outlives_its_ca() {
    let issued = server(&authority(100), 365, NOW);
    assert!(issued.is_cut_short);
    assert_eq!(issued.certificate.not_after, NOW.plus(DAY * 100));
    let profile = profile::named("server").unwrap();
    for (at, remedy) in [(NOW.plus(DAY * 100), "ca create"), (NOW.minus(DAY), "clock")] {
        let error =
            authority(100).issue(profile, &profile.issued(&place()), DAY, at).unwrap_err().to_string();
        assert!(error.contains(remedy), "{error}");
    }
}

#[test]
fn renewal_changes_dates_key_and_serial_number_and_nothing_else() {
    let ca = authority(1000);
    let old = server(&ca, 90, NOW).certificate;
    let later = NOW.plus(DAY * 80);
    let lifetime = old.not_before.until(old.not_after).unwrap();
    let new = ca.renew(&old, lifetime, later).unwrap().certificate;
    let kept = |one: &Certificate| (one.subject_raw.clone(), one.names(), one.usages.clone());
    assert_eq!(kept(&new), kept(&old));
    assert_eq!((new.key_usages, new.ca), (old.key_usages, old.ca));
    assert_eq!(new.not_after, later.plus(DAY * 90));
    assert!(new.serial != old.serial && new.public_key != old.public_key);
    let count = |one: &Certificate| one.extensions.len();
    assert_eq!(count(&new), count(&server(&ca, 90, NOW).certificate));
}

#[test]
fn a_ca_that_does_not_allow_the_names_is_told_before_consul_tells_it() {
    let request = NewAuthority { lifetime: DAY * 10, constraints: vec!["other".into(), "localhost".into()] };
    let (ca, _) = Authority::create(&request, NOW).unwrap();
    let profile = profile::named("server").unwrap();
    let error = ca.issue(profile, &profile.issued(&place()), DAY, NOW).unwrap_err().to_string();
    assert!(error.contains("name constraints"), "{error}");
    let inside = Place { domain: "other".into(), ..place() };
    ca.issue(profile, &profile.issued(&inside), DAY, NOW).unwrap();
}

#[test]
fn what_is_no_ca_or_has_no_key_is_refused() {
    let ca = authority(10);
    let leaf = server(&ca, 1, NOW);
    let key = || Contents::read(leaf.key.expose().as_bytes()).keys.pop().unwrap();
    let error = Authority::new(leaf.certificate.clone(), key()).unwrap_err();
    assert!(matches!(error, AuthorityError::NotACa { .. }), "{error}");
    let error = Authority::new(ca.certificate().clone(), key()).unwrap_err();
    assert!(matches!(error, AuthorityError::KeyMismatch { .. }), "{error}");
}

#[test]
fn a_name_that_no_certificate_holds_is_refused() {
    let ca = authority(10);
    let profile = profile::named("cli").unwrap();
    let long = "a".repeat(64);
    for name in ["", "a b", "a..b", "ü.test", "-\n.test", long.as_str(), "*"] {
        let names = Names { dns: vec![name.into()], addresses: Vec::new() };
        let error = ca.issue(profile, &names, DAY, NOW).unwrap_err();
        assert!(matches!(error, AuthorityError::Name { .. }), "{name}: {error}");
    }
}

/// CAs that others made, each with a name of its own form.
#[test]
fn every_kind_of_ca_signs_and_its_name_stays_as_it_is() {
    let rsa = format!("-----BEGIN PRIVATE KEY-----\n{RSA}\n-----END PRIVATE KEY-----\n");
    let keys = [
        KeyPair::generate().unwrap(),
        KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap(),
        KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap(),
        KeyPair::from_pkcs8_pem_and_sign_algo(&rsa, &rcgen::PKCS_RSA_SHA256).unwrap(),
    ];
    let mut kinds = Vec::new();
    for key in keys {
        let mut params = blank("An old CA");
        params.distinguished_name.push(DnType::CustomDnType(vec![2, 5, 4, 17]), "94105");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let text = params.self_signed(&key).unwrap().pem() + &key.serialize_pem();
        let mut read = Contents::read(text.as_bytes());
        assert!(read.problems.is_empty(), "{:?}", read.problems);
        let ca = Authority::new(read.certificates.remove(0), read.keys.remove(0)).unwrap();
        let issued = server(&ca, 90, NOW).certificate;
        assert_eq!(issued.issuer_raw, ca.certificate().subject_raw);
        assert_eq!(issued.key_kind, "EC P-256");
        kinds.push(ca.certificate().key_kind.clone());
        assert!(ca.renew(&issued, DAY, NOW).is_ok());
    }
    assert_eq!(kinds, ["EC P-256", "EC P-384", "Ed25519", "RSA 2048"]);
}

#[test]
fn keys_that_cannot_be_used_are_told_and_not_shown() {
    for text in [
        "-----BEGIN PRIVATE KEY-----\naHVzaC1odXNo\n-----END PRIVATE KEY-----\n",
        "-----BEGIN EC PRIVATE KEY-----\naHVzaC1odXNo\n-----END EC PRIVATE KEY-----\n",
        "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: x\n\naHVzaC1odXNo\n-----END EC PRIVATE KEY-----\n",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\naHVzaC1odXNo\n-----END ENCRYPTED PRIVATE KEY-----\n",
        "-----BEGIN RSA PRIVATE KEY-----\nhush-hush\n",
    ] {
        let read = Contents::read(text.as_bytes());
        let told = read.problems.join(" ");
        assert!(read.keys.is_empty() && read.problems.len() == 1, "{read:?}");
        assert!(!told.contains("hush") && !told.contains("aHVz"), "{told}");
    }
}
