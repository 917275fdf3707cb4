// What the tests do in a page. Whatever lib-jitsi-meet says is kept in `events`, in order.

/* global JitsiMeetJS */
"use strict";

const events = [];
const waiting = new Set();
let connection;
let conference;

// What JSON can carry. A participant is shown by its id.
function plain(value) {
    if (value && typeof value.getId === "function") return { participant: value.getId() };
    try {
        return JSON.parse(JSON.stringify(value === undefined ? null : value));
    } catch {
        return String(value);
    }
}

function note(name, ...args) {
    events.push({ name, args: args.map(plain) });
    for (const look of [...waiting]) look();
}

// The first event, from a position on, that fits; null if there is none within the time.
function waitFor(fits, from, milliseconds) {
    return new Promise((resolve) => {
        const look = () => {
            const found = events.slice(from).find(fits);
            if (found) end(found);
        };
        const end = (event) => {
            waiting.delete(look);
            clearTimeout(timer);
            resolve(event);
        };
        const timer = setTimeout(() => end(null), milliseconds);
        waiting.add(look);
        look();
    });
}

function waitForOneOf(names, from, milliseconds) {
    return waitFor((event) => names.includes(event.name), from, milliseconds);
}

// A JSON message that no participant has sent.
function waitForMessage(type, milliseconds) {
    const fits = ({ name, args }) =>
        name === "NON_PARTICIPANT_MESSAGE_RECEIVED" && args[0] === null && args[1].type === type;
    return waitFor(fits, 0, milliseconds);
}

JitsiMeetJS.init({ disableAudioLevels: true });
JitsiMeetJS.setLogLevel(JitsiMeetJS.logLevels.ERROR);

// Resolves with the user's JID.
function connect(hosts, serviceUrl) {
    connection = new JitsiMeetJS.JitsiConnection(null, null, { hosts, serviceUrl, enableWebsocketResume: false });
    const { CONNECTION_ESTABLISHED, CONNECTION_FAILED } = JitsiMeetJS.events.connection;
    return new Promise((resolve, reject) => {
        connection.addEventListener(CONNECTION_ESTABLISHED, () => resolve(connection.getJid()));
        connection.addEventListener(CONNECTION_FAILED, (...args) => reject(new Error(JSON.stringify(args))));
        connection.connect();
    });
}

// Releases before 2021 have no event for the room's own messages. They keep them to themselves; the sender is a JID.
function listenToRoom() {
    if (JitsiMeetJS.events.conference.NON_PARTICIPANT_MESSAGE_RECEIVED) return;
    conference.room.addListener("xmmp.json_message_received", (from, message) => {
        const id = from.split("/")[1];
        if (!id) note("NON_PARTICIPANT_MESSAGE_RECEIVED", null, message);
    });
}

function open(room) {
    conference = connection.initJitsiConference(room, { testing: {}, p2p: { enabled: false } });
    for (const [name, event] of Object.entries(JitsiMeetJS.events.conference)) {
        conference.addEventListener(event, (...args) => note(name, ...args));
    }
    if (window.APP) window.APP.enter(conference, room);
    else listenToRoom();
}

// Resolves with the event that ends the join: CONFERENCE_JOINED, or a failure.
function join(room, { name, password } = {}) {
    open(room);
    if (name) conference.setDisplayName(name);
    return joinAgain(password);
}

function joinAgain(password) {
    const from = events.length;
    conference.join(password);
    return waitForOneOf(["CONFERENCE_JOINED", "CONFERENCE_FAILED"], from, 15000);
}

// How many requests BOSH has made so far.
function requests() {
    return performance.getEntriesByType("resource").filter((entry) => entry.name.includes("/http-bind")).length;
}
