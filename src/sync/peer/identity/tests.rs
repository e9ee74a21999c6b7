use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};

use super::*;
use crate::model::secret::SecretText;

const ID: &str = "spiffe://td.consul/ns/default/dc/primary/svc/causeway-sync";

fn names() -> Names {
    Names { trust_domain: "td.consul".into(), datacenters: ["primary".into(), "secondary".into()].into() }
}

fn certificate(sans: Vec<SanType>) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.subject_alt_names = sans;
    params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

#[test]
fn exactly_one_uri_of_a_configured_datacenter_is_a_peer() {
    let names = names();
    let judge = |sans| names.datacenter(&certificate(sans));
    assert_eq!(judge(vec![uri(ID)]), Ok("primary".into()));
    assert_eq!(judge(vec![uri(&ID.replace("primary", "secondary"))]), Ok("secondary".into()));
    let dns = SanType::DnsName("causeway-sync.svc.default".try_into().unwrap());
    assert_eq!(judge(vec![dns.clone(), uri(ID)]), Ok("primary".into()), "DNS names mean nothing");
    assert_eq!(judge(vec![]), Err(Stranger::Uris(0)));
    assert_eq!(judge(vec![dns]), Err(Stranger::Uris(0)));
    assert_eq!(judge(vec![uri(ID), uri(ID)]), Err(Stranger::Uris(2)));
    assert_eq!(
        judge(vec![uri(ID), uri("spiffe://td.consul/ns/default/dc/primary/svc/web")]),
        Err(Stranger::Uris(2))
    );
    let strangers = [
        "spiffe://td.consul/ns/default/dc/primary/svc/web",
        "spiffe://td.consul/ns/default/dc/tertiary/svc/causeway-sync",
        "spiffe://other.consul/ns/default/dc/primary/svc/causeway-sync",
        "spiffe://td.consul/ns/team/dc/primary/svc/causeway-sync",
        "spiffe://td.consul/ap/x/ns/default/dc/primary/svc/causeway-sync",
        "spiffe://td.consul/ns/default/dc/primary/svc/causeway-sync/",
        "spiffe://td.consul/ns/default/dc/primary/svc/causeway-sync?x",
        "spiffe://td.consul/ns/default/dc/PRIMARY/svc/causeway-sync",
        "spiffe://td.consul/ns/default/dc/prim%61ry/svc/causeway-sync",
        "SPIFFE://td.consul/ns/default/dc/primary/svc/causeway-sync",
        "spiffe://td.consul/agent/server/dc/primary",
        "",
    ];
    for text in strangers {
        assert!(matches!(judge(vec![uri(text)]), Err(Stranger::Another { .. })), "{text}");
    }
    for garbage in [&b""[..], b"\x30", b"not a certificate"] {
        assert!(matches!(names.datacenter(garbage), Err(Stranger::Unreadable(_))));
    }
}

fn consul() -> (Roots, Leaf) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = params.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![uri(ID)];
    let leaf = Leaf {
        service: SERVICE.into(),
        chain_pem: params.signed_by(&key, &issuer).unwrap().pem(),
        key_pem: key.serialize_pem().into(),
        valid_before_s: 1,
    };
    (Roots { trust_domain: "td.consul".into(), pem: vec![root] }, leaf)
}

#[test]
fn what_consul_gives_becomes_an_identity_or_a_reason() {
    let ((roots, leaf), all) = (consul(), names().datacenters);
    let identity = Identity::new(&roots, &leaf, &all).unwrap();
    assert_eq!(identity.datacenter(), &Datacenter::from("primary"));
    let (_, sni) = identity.client(&"secondary".into()).unwrap();
    assert_eq!(sni.to_str(), "causeway-sync.default.secondary.internal.td.consul");
    assert!(!format!("{identity:?}").contains("BEGIN"));

    let refused =
        |roots: &Roots, leaf: &Leaf, all: &BTreeSet<Datacenter>| Identity::new(roots, leaf, all).unwrap_err();
    let elsewhere = BTreeSet::from([Datacenter::from("secondary")]);
    assert!(matches!(refused(&roots, &leaf, &elsewhere), IdentityError::Stranger(_)));
    let another = Leaf { key_pem: consul().1.key_pem, ..leaf.clone() };
    let told = refused(&roots, &another, &all).to_string();
    assert!(told.contains("does not belong") && !told.contains("BEGIN"), "{told}");
    let broken = Leaf { key_pem: SecretText::from("-----BEGIN hush"), ..leaf.clone() };
    assert!(!refused(&roots, &broken, &all).to_string().contains("hush"));
    let empty = Leaf { chain_pem: String::new(), ..leaf.clone() };
    assert!(matches!(refused(&roots, &empty, &all), IdentityError::Leaf(_)));
    let nothing = Roots { pem: vec!["garbage".into()], ..roots };
    assert!(matches!(refused(&nothing, &leaf, &all), IdentityError::Roots(_)));
}
