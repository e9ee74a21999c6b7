use super::*;

fn all() -> Vec<(String, String)> {
    pages(crate::cli::command("abcdef123456"))
}

fn text_of(name: &str) -> String {
    all().into_iter().find(|(page, _)| page == name).expect(name).1
}

#[test]
fn every_command_that_people_use_has_a_page_of_its_own() {
    let names: Vec<String> = all().into_iter().map(|(name, _)| name).collect();
    for name in ["causeway.1", "causeway-agent.1", "causeway-proxy.1", "causeway-proxy-status.1"] {
        assert!(names.iter().any(|page| page == name), "{name} is missing: {names:?}");
    }
    for hidden in ["demo", "manual", "help"] {
        assert!(!names.iter().any(|page| page.contains(hidden)), "{hidden}: {names:?}");
    }
}

#[test]
fn examples_keep_their_lines_and_exit_codes_have_a_section() {
    let page = text_of("causeway-agent.1");
    let expected = ".SH EXAMPLES\n.RS 4\n.nf\ncauseway agent \\-\\-config /etc/causeway/agent.toml\n";
    assert!(page.contains(expected), "{page}");
    assert!(page.contains("agent.toml\n.fi\n.RE\n"), "an empty line ends the examples: {page}");
    assert!(page.contains(".SH \"EXIT STATUS\"\n0 stopped by a signal, 1 failed"), "{page}");
}

#[test]
fn pages_lead_to_their_neighbours() {
    let page = text_of("causeway-proxy-status.1");
    assert!(page.ends_with(".SH \"SEE ALSO\"\n\\fBcauseway\\-proxy\\fR(1)\n"), "{page}");
    assert!(text_of("causeway.1").contains("\\fBcauseway\\-agent.toml\\fR(5)"));
}

#[test]
fn a_page_names_the_version_at_its_foot() {
    let head = format!(
        ".TH CAUSEWAY-AGENT 1 \" \" \"causeway {}\" \"Causeway manual\"\n",
        env!("CARGO_PKG_VERSION")
    );
    let page = text_of("causeway-agent.1");
    assert!(page.contains(&head), "{page}");
}
