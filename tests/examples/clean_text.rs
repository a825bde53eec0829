//! The example `clean_text`.

use crate::harness::Sandbox;

#[test]
fn clean_text_tolerates_one_broken_document() {
    Sandbox::new().example("clean_text").run().exits(0).out_is(
        "garden.html: the garden the garden in march sow peas and broad beans as soon as the soil can be worked. prune the roses.
letter.html: dear ms ångström, thank you for the parcel. it came on tuesday and nothing was broken. yours, zoë
notes.html: notes water bread lamp oil
prices.html: sum 12 < 15 salt & pepper 3 < 5
torn.html: one line that ends inside a tag
latin1.html: failed after 1 attempt: stream did not contain valid UTF-8
5 of 6 documents are clean
",
    );
}

#[test]
fn clean_text_does_not_tolerate_every_second_document() {
    let sandbox = Sandbox::new();
    let texts = sandbox.folder("texts");
    sandbox.file("texts/one.html", b"\xff");
    sandbox.file("texts/two.html", "<p>Two</p>");
    let ended = sandbox.example("clean_text").arg(texts).run();
    ended.exits(1).err_has("clean_text: 1 of 2 items failed, 0 allowed");
}
