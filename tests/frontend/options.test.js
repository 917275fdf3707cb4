"use strict";

const assert = require("assert");
const test = require("node:test");
const { TEXTS, readOptions } = require("../../frontend/room-config.js");

// What these attributes of the script's tag mean, and the lines in the console.
function read(dataset) {
    const lines = [];
    return { ...readOptions(dataset && { dataset }, (line) => lines.push(line)), lines };
}

test("without attributes there are no other origins and the script's own texts", () => {
    for (const dataset of [null, {}, { redirectOrigins: " ", texts: "{}" }]) {
        assert.deepStrictEqual(read(dataset), { origins: [], texts: TEXTS, lines: [] });
    }
});

test("origins and texts of the operator are used", () => {
    const usable = [
        "https://login.example.com", "http://127.0.0.1:8080/", "https://b\u00fccher.example", "https://[::1]:8443",
    ];
    const { origins, texts, lines } = read({
        redirectOrigins: usable.join("\n "),
        texts: '{"close": "Schlie\u00dfen"}',
    });
    assert.deepStrictEqual(origins, usable);
    assert.deepStrictEqual(texts, { ...TEXTS, close: "Schlie\u00dfen" });
    assert.deepStrictEqual(lines, []);
});

for (const wrong of [
    "login.example.com", "https://", "https://login.example.com/path", "https://*.example.com",
    "https://a.example,https://b.example", "https://a.example,", "https://[bad", "https://a.example:99999",
    "https://exa%mple", "https://me@login.example.com", "javascript:x", "null",
]) {
    test(`the origin ${wrong} is named, and leaves the others`, () => {
        const { origins, lines } = read({ redirectOrigins: `${wrong} https://login.example.com` });
        assert.deepStrictEqual(origins, ["https://login.example.com"]);
        assert.deepStrictEqual(lines, [
            `room-config: data-redirect-origins: ${wrong} must look like https://login.example.com`,
        ]);
    });
}

for (const wrong of ["", "{", "null", "[]", "7", '"Schliessen"']) {
    test(`texts that are ${wrong || "nothing"} are not used, and a line says what is needed`, () => {
        const { texts, lines } = read({ texts: wrong });
        assert.deepStrictEqual(texts, TEXTS);
        assert.deepStrictEqual(lines, [
            'room-config: data-texts: a JSON object is needed, such as {"close": "Schliessen"}',
        ]);
    });
}

test("a text that is wrong is named, and leaves the others", () => {
    const { texts, lines } = read({
        texts: '{"endsIn": 5, "close": null, "ended": " ", "clos": "x", "__proto__": {}, "toString": "x", ' +
            '"logIn": "Anmelden"}',
    });
    assert.deepStrictEqual(texts, { ...TEXTS, logIn: "Anmelden" });
    assert.deepStrictEqual(lines, [
        "room-config: data-texts: endsIn must be a text in quotes, and not empty",
        "room-config: data-texts: close must be a text in quotes, and not empty",
        "room-config: data-texts: ended must be a text in quotes, and not empty",
        "room-config: data-texts: there is no text named clos",
        "room-config: data-texts: there is no text named __proto__",
        "room-config: data-texts: there is no text named toString",
    ]);
});
