// How the script finds Jitsi. There is no timer here: what it waits for, it must be told.
"use strict";

const assert = require("assert").strict;
const fs = require("fs");
const path = require("path");
const test = require("node:test");
const vm = require("vm");

const SCRIPT = fs.readFileSync(path.join(__dirname, "../../frontend/room-config.js"), "utf8");

class Store {
    constructor() {
        this.listeners = [];
    }

    getState() {
        return {};
    }

    subscribe(listener) {
        this.listeners.push(listener);
    }
}

function load(values) {
    const document = { currentScript: null, createElement: () => ({}) };
    const page = vm.createContext({
        JitsiMeetJS: { events: { conference: {} } }, console, document, queueMicrotask, ...values,
    });
    page.window = page;
    vm.runInContext(SCRIPT, page);
    return page;
}

test("it begins before a message can come, whatever is there first", async () => {
    const orders = {
        "the store": (store) => load({ APP: { store } }),
        "Jitsi without a store": (store) => Object.assign(load({ APP: {} }).APP, { store }),
        "the script": (store) => Object.assign(Object.assign(load({}), { APP: {} }).APP, { store }),
    };
    for (const [first, make] of Object.entries(orders)) {
        const store = new Store();
        make(store);
        await null;
        assert.equal(store.listeners.length, 1, first);
    }
});

test("Jitsi has what it has set, and can set it again", async () => {
    const { APP } = load({ APP: {} });
    assert.equal(APP.store, undefined);
    const [first, second] = [new Store(), new Store()];
    APP.store = first;
    assert.equal(APP.store, first);
    APP.store = second;
    assert.equal(APP.store, second);
    await null;
    assert.deepEqual(Object.keys(APP), ["store"]);
});

test("a Jitsi that is different goes on", () => {
    const queueMicrotask = (task) => assert.throws(task, /undefined/);
    const { APP } = load({ APP: {}, JitsiMeetJS: undefined, queueMicrotask });
    const store = new Store();
    APP.store = store;
    assert.equal(APP.store, store);
});
