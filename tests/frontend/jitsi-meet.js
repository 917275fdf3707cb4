// jitsi-meet's own store, as far as the script touches it: its reducers, the middleware of its toolbar, and the
// functions by which its page decides what to offer. tools/jitsi-meet.sh gets the sources. Each file that is named here
// is compiled as it is read; all others are replaced by something that does nothing.
"use strict";

const { existsSync, readFileSync } = require("fs");
const Module = require("module");
const { dirname, join, relative, resolve } = require("path");

const SOURCES = resolve(__dirname, "../../.cache/jitsi-meet-13.2.0");
const DEBIAN = "/usr/share/nodejs/";
const REDUCERS = [
    "base/config/reducer.ts", "base/conference/reducer.ts", "notifications/reducer.ts", "toolbox/reducer.ts",
    "toolbox/middleware.web.ts",
];
const FILES = new Set([
    ...REDUCERS, "base/app/functions.ts", "base/conference/actionTypes.ts", "base/conference/constants.ts",
    "base/config/actionTypes.ts", "base/config/constants.ts", "base/config/functions.any.ts",
    "base/config/functions.web.ts", "base/jwt/constants.ts", "base/jwt/functions.ts", "base/participants/constants.ts",
    "base/participants/functions.ts", "base/redux/MiddlewareRegistry.ts", "base/redux/ReducerRegistry.ts",
    "base/redux/functions.ts", "breakout-rooms/functions.ts", "conference/components/constants.ts",
    "conference/functions.any.ts", "filmstrip/functions.web.ts", "notifications/actionTypes.ts",
    "notifications/constants.ts", "participants-pane/functions.ts", "reactions/functions.any.ts",
    "recording/functions.ts", "speaker-stats/functions.ts", "subtitles/functions.any.ts", "toolbox/actionTypes.ts",
    "toolbox/actions.any.ts", "toolbox/actions.web.ts", "toolbox/constants.ts", "toolbox/functions.any.ts",
    "toolbox/functions.web.ts", "toolbox/types.ts", "visitors/functions.ts",
]);

// What a moderator's page has in the parts of the state whose reducers are not loaded.
const REST = {
    "features/base/flags": {},
    "features/base/jwt": {},
    "features/base/participants": { local: { id: "me", role: "moderator", local: true }, remote: new Map() },
    "features/breakout-rooms": { rooms: {} },
    "features/dropbox": {},
    "features/jaas": {},
    "features/recording": { sessionDatas: [] },
    "features/recording-protection": {},
    "features/transcribing": {},
    "features/visitors": {},
};

const WHY_MISSING = !existsSync(SOURCES)
    ? "there is no .cache/jitsi-meet-13.2.0 (tools/setup.sh test gets it)"
    : !existsSync(`${DEBIAN}typescript`) && "the Debian package node-typescript is not installed";

function nothing() {
    return new Proxy(function () {}, {
        get: (_, name) => (name === "then" ? undefined : name === "__esModule" ? true : nothing()),
        apply: () => undefined,
    });
}

const REDUX = {
    applyMiddleware: (...middlewares) => middlewares,
    combineReducers: (reducers) => (state = {}, action) =>
        Object.entries(reducers).reduce((all, [name, reduce]) => ({ ...all, [name]: reduce(state[name], action) }), {}),
};

function libraryOf(name) {
    if (name === "redux") return REDUX;
    if (name === "react-redux") return { batch: (run) => run() };
    return name === "lodash-es" ? require(`${DEBIAN}lodash`) : nothing();
}

// Imports of jitsi-meet's files; all others are node's business.
function teachNode() {
    const ts = require(`${DEBIAN}typescript`);
    const options = { compilerOptions: { module: "commonjs", target: "es2019", esModuleInterop: true } };
    require.extensions[".ts"] = (module, file) =>
        module._compile(ts.transpileModule(readFileSync(file, "utf8"), options).outputText, file);
    const load = Module._load;
    Module._load = function (request, parent, ...rest) {
        if (!parent || !parent.filename.startsWith(SOURCES)) return load.call(this, request, parent, ...rest);
        if (!request.startsWith(".")) return libraryOf(request);
        const base = relative(SOURCES, resolve(dirname(parent.filename), request));
        const file = [".web.ts", ".ts"].map((end) => base + end).find((each) => FILES.has(each));
        return file ? load.call(this, join(SOURCES, file), parent, ...rest) : nothing();
    };
    for (const [name, value] of Object.entries({
        APP: { API: nothing() }, interfaceConfig: {}, navigator: { product: "Gecko", userAgent: "" }, window: global,
    })) Object.defineProperty(global, name, { value, configurable: true });
}

if (!WHY_MISSING) teachNode();
const read = (file) => require(join(SOURCES, file));

class JitsiStore {
    constructor(config) {
        for (const file of REDUCERS) read(file);
        const reduce = read("base/redux/ReducerRegistry.ts").default.combineReducers({});
        this.state = reduce(undefined, { type: "begin" });
        this.listeners = [];
        this.dispatch = (action) => this.send(action);
        this.getState = () => ({ ...REST, ...this.state });
        const last = (action) => {
            this.state = reduce(this.state, action);
            for (const listener of this.listeners) listener();
            return action;
        };
        const middlewares = read("base/redux/MiddlewareRegistry.ts").default.applyMiddleware();
        this.send = middlewares.map((each) => each(this)).reduceRight((next, each) => each(next), last);
        this.dispatch({ type: "SET_CONFIG", config });
    }

    subscribe(listener) {
        this.listeners.push(listener);
    }
}

module.exports = { JitsiStore, WHY_MISSING, read };
