// A page for the script, without a browser: Jitsi's store as far as the script sees it, and conferences.
"use strict";

const { EventEmitter } = require("events");
const { RoomConfig, TEXTS, allowedAddress } = require("../../frontend/room-config.js");

const ADDRESS = "https://meet.example.com/standup";
const EVENTS = {};
for (const name of [
    "CONFERENCE_JOINED", "CONFERENCE_LEFT", "CONFERENCE_FAILED", "KICKED", "METADATA_UPDATED",
    "NON_PARTICIPANT_MESSAGE_RECEIVED",
]) EVENTS[name] = name;

// What the reducers of jitsi-meet do with these actions (react/features/base/config/reducer.ts and others).
function reduce(state, action) {
    const change = (feature, values) => ({ ...state, [feature]: { ...state[feature], ...values } });
    switch (action.type) {
    case "OVERWRITE_CONFIG":
        return change("features/base/config", action.config);
    case "SET_CONFIG":
        return { ...state, "features/base/config": action.config };
    case "CONFERENCE_LOCAL_SUBJECT_CHANGED":
        return change("features/base/conference", { localSubject: action.localSubject });
    case "CONFERENCE_WILL_JOIN":
        return change("features/base/conference", { joining: action.conference });
    case "MEETING": // what the test wants to be otherwise
        return change("features/base/conference", action.values);
    default:
        return state;
    }
}

class Store {
    constructor(config) {
        this.state = {
            "features/base/config": config,
            "features/base/conference": { room: "standup" },
            "features/toolbox": { toolbarButtons: ["chat", "brand-new"] },
        };
        this.actions = [];
        this.listeners = [];
    }

    getState() {
        return this.state;
    }

    dispatch(action) {
        this.actions.push(action);
        this.state = reduce(this.state, action);
        for (const listener of this.listeners) listener();
    }

    subscribe(listener) {
        this.listeners.push(listener);
    }
}

class Conference extends EventEmitter {
    constructor(metadata = {}) {
        super();
        this.metadata = metadata;
        this.options = { config: {} };
    }

    getMetadataHandler() {
        return { getMetadata: () => this.metadata };
    }
}

// What Dialog and Notice are asked to do, in order.
class Screen {
    constructor(done, name) {
        for (const act of ["show", "close", "countDown", "goOn", "pause", "end"]) {
            this[act] = (...args) => done.push([`${name}.${act}`, ...args]);
        }
    }
}

// A page with the script, in which nobody has joined yet.
class Page {
    constructor({ config = {}, store = new Store(config), conference = new Conference(), isLate = false } = {}) {
        this.store = store;
        this.conference = conference;
        this.done = [];
        this.warnings = [];
        if (isLate) this.meeting({ conference });
        new RoomConfig({
            store: this.store,
            events: EVENTS,
            media: () => ({
                muteAudio: () => this.done.push(["mute", "audio"]),
                muteVideo: () => this.done.push(["mute", "video"]),
            }),
            dialog: new Screen(this.done, "dialog"),
            notice: new Screen(this.done, "notice"),
            warn: (line) => this.warnings.push(line),
            texts: TEXTS,
            allowedAddress: (url) => allowedAddress(url, ADDRESS, ["https://login.example.com"]),
        }).start();
        if (!isLate) this.enter(conference);
    }

    // As jitsi-meet does before it joins.
    enter(conference) {
        this.conference = conference;
        this.store.dispatch({ type: "CONFERENCE_WILL_JOIN", conference });
    }

    join() {
        this.meeting({ joining: undefined, conference: this.conference });
        this.conference.emit("CONFERENCE_JOINED");
    }

    meeting(values) {
        this.store.dispatch({ type: "MEETING", values });
    }

    // From the room itself, or from a participant with an ID.
    say(message, id = null) {
        this.conference.emit("NON_PARTICIPANT_MESSAGE_RECEIVED", id, message);
    }

    settings(settings, id = null) {
        this.say({ type: "ROOM_CONFIG", config: settings }, id);
    }

    metadata(settings) {
        this.conference.metadata = { roomConfig: settings };
        this.conference.emit("METADATA_UPDATED", this.conference.metadata);
    }

    get config() {
        return this.store.state["features/base/config"];
    }

    get title() {
        return this.store.state["features/base/conference"].localSubject;
    }

    get dialogs() {
        return this.done.filter(([what]) => what === "dialog.show").map(([, content]) => content);
    }

    get muted() {
        return this.done.filter(([what]) => what === "mute").map(([, media]) => media);
    }
}

module.exports = { Page, Conference };
