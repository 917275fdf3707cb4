// Stands in for jitsi-meet's page, as far as frontend/room-config.js sees it: the store with its reducers, what the
// page offers by its config, and a plain drawing of that. Read in jitsi-meet of August 2026; the paths are below
// react/features/. lib-jitsi-meet is the real one.
"use strict";

const EVENTS = JitsiMeetJS.events.conference;
const METADATA = "metadata.localhost";

// base/config/reducer.ts, base/conference/reducer.ts, toolbox/middleware.web.ts, notifications/reducer.ts
function reduce(state, action) {
    const change = (feature, values) => ({ ...state, [feature]: { ...state[feature], ...values } });
    const { conference } = action;
    switch (action.type) {
    case "OVERWRITE_CONFIG":
        return change("features/base/config", action.config);
    case "SET_TOOLBAR_BUTTONS":
        return change("features/toolbox", { toolbarButtons: action.toolbarButtons });
    case "SET_ROOM":
        return change("features/base/conference", { room: action.room });
    case "CONFERENCE_WILL_JOIN":
        return change("features/base/conference", { joining: conference, error: undefined });
    case "CONFERENCE_JOINED":
        return change("features/base/conference", {
            conference, joining: undefined, error: undefined,
            e2eeSupported: !(conference.options.config.e2ee || {}).disabled,
        });
    case "CONFERENCE_FAILED":
        return change("features/base/conference", { conference: undefined, joining: undefined, error: action.error });
    case "CONFERENCE_LEFT":
    case "KICKED_OUT":
        return change("features/base/conference", { conference: undefined, joining: undefined, subject: undefined });
    case "CONFERENCE_SUBJECT_CHANGED":
        return change("features/base/conference", { subject: action.subject });
    case "CONFERENCE_LOCAL_SUBJECT_CHANGED":
        return change("features/base/conference", { localSubject: action.localSubject });
    case "SET_MUTED":
        return change("features/base/media", action.muted);
    case "SHOW_NOTIFICATION":
        return change("features/notifications", { notifications: [action] });
    default:
        return state;
    }
}

const BUTTONS = [
    "microphone", "camera", "desktop", "chat", "raisehand", "participants-pane", "tileview", "security",
    "closedcaptions", "polls", "recording", "livestreaming", "shareaudio", "noisesuppression", "whiteboard", "etherpad",
    "select-background", "stats", "settings", "hangup",
];

class Store {
    constructor() {
        this.state = {
            "features/base/config": {
                transcription: { enabled: true },
                recordingService: { enabled: true },
                liveStreaming: { enabled: true },
                whiteboard: { enabled: true, collabServerBaseUrl: "https://whiteboard.example.com" },
                remoteVideoMenu: { disableGrantModerator: true },
            },
            "features/base/conference": {},
            "features/base/media": { audio: false, video: false },
            "features/notifications": { notifications: [] },
            "features/toolbox": { toolbarButtons: BUTTONS },
        };
        this.listeners = [];
    }

    getState() {
        return this.state;
    }

    dispatch(action) {
        this.state = reduce(this.state, action);
        for (const listener of [...this.listeners]) listener();
        if (action.type === "OVERWRITE_CONFIG") {
            const { toolbarButtons } = this.state["features/base/config"];
            const found = Array.isArray(toolbarButtons) ? toolbarButtons : BUTTONS;
            this.dispatch({ type: "SET_TOOLBAR_BUTTONS", toolbarButtons: found });
        }
        return action;
    }

    subscribe(listener) {
        this.listeners.push(listener);
    }
}

// What a moderator is offered, by the config and the buttons of the toolbar; undefined for "as far as I know".
function offers({ "features/base/config": config, "features/base/conference": meeting, "features/toolbox": toolbox }) {
    const {
        breakoutRooms = {}, filmstrip = {}, liveStreaming = {}, localRecording = {}, participantsPane = {},
        recordingService = {}, remoteVideoMenu = {}, speakerStats = {}, transcription = {}, virtualBackground = {},
        whiteboard = {},
    } = config;
    const records = !localRecording.disable || recordingService.enabled; // recording/functions.ts, but for tokens
    const conditions = {
        chat: !config.disableChat, // chat/hooks.web.ts
        closedcaptions: transcription.enabled && !transcription.disableClosedCaptions, // subtitles/functions.any.ts
        livestreaming: liveStreaming.enabled && toolbox.toolbarButtons.includes("recording"), // recording/hooks.web.ts
        polls: !config.disablePolls, // conference/functions.any.ts
        recording: records,
        "select-background": virtualBackground.disabled !== true, // virtual-background/functions.ts
        stats: !speakerStats.disabled, // speaker-stats/functions.ts
        tileview: !config.disableTileView, // video-layout/functions.any.ts
        whiteboard: whiteboard.enabled && whiteboard.collabServerBaseUrl, // whiteboard/functions.ts
    };
    const elsewhere = {
        "make breakout rooms": !breakoutRooms.hideAddRoomButton, // breakout-rooms/functions.ts
        "join breakout rooms": !breakoutRooms.hideJoinRoomButton,
        "change the name": !config.readOnlyName, // base/config/functions.any.ts
        encrypt: meeting.e2eeSupported, // security/components/security-dialog/web/SecurityDialog.tsx
        filmstrip: !filmstrip.disabled, // filmstrip/functions.web.ts
        "mute all": !participantsPane.hideMuteAllButton, // participants-pane/functions.ts
        react: !config.disableReactions, // reactions/functions.any.ts
        remove: !remoteVideoMenu.disableKick, // video-menu/components/web/ParticipantContextMenu.tsx
        "write privately": remoteVideoMenu.disablePrivateChat !== "all", // base/participants/functions.ts
    };
    const isOffered = (button) => !(button in conditions) || Boolean(conditions[button]);
    return {
        toolbar: BUTTONS.filter((button) => toolbox.toolbarButtons.includes(button) && isOffered(button)),
        menus: Object.keys(elsewhere).filter((what) => elsewhere[what]),
    };
}

// Releases before 2021 have no event for the room's own messages, and none for the room's metadata. A newer one is left
// alone.
function complete(conference) {
    if (conference.getMetadataHandler) return;
    let metadata = {};
    const emit = (...args) => conference.eventEmitter.emit(...args);
    conference.getMetadataHandler = () => ({ getMetadata: () => metadata });
    // The room itself has no ID. Newer ones give this event also for a participant whom they do not know yet.
    conference.room.addListener("xmmp.json_message_received", (from, message) => {
        emit(EVENTS.NON_PARTICIPANT_MESSAGE_RECEIVED, from.split("/")[1] || null, message);
    });
    const take = (stanza) => {
        const element = stanza.getElementsByTagName("json-message")[0];
        const message = element && conference.xmpp.tryParseJSONAndVerify(element.textContent);
        if (message && message.type === "room_metadata") {
            metadata = message.metadata;
            emit(EVENTS.METADATA_UPDATED, metadata);
        }
        return true;
    };
    conference.xmpp.connection.addHandler(take, null, "message", null, null, METADATA);
}

if (!EVENTS.NON_PARTICIPANT_MESSAGE_RECEIVED) {
    EVENTS.NON_PARTICIPANT_MESSAGE_RECEIVED = "conference.non_participant_message_received";
    EVENTS.METADATA_UPDATED = "conference.metadata.updated";
}

// conference.js: before the join, for the main room and for each breakout room.
function enter(conference, room) {
    complete(conference);
    const { dispatch } = window.APP;
    dispatch({ type: "SET_ROOM", room });
    dispatch({ type: "CONFERENCE_WILL_JOIN", conference });
    conference.on(EVENTS.CONFERENCE_JOINED, () => dispatch({ type: "CONFERENCE_JOINED", conference }));
    conference.on(EVENTS.CONFERENCE_FAILED, (error) => dispatch({ type: "CONFERENCE_FAILED", conference, error }));
    conference.on(EVENTS.CONFERENCE_LEFT, () => dispatch({ type: "CONFERENCE_LEFT", conference }));
    conference.on(EVENTS.KICKED, () => dispatch({ type: "KICKED_OUT", conference }));
    conference.on(EVENTS.SUBJECT_CHANGED, (subject) => dispatch({ type: "CONFERENCE_SUBJECT_CHANGED", subject }));
}

function element(tag, className, textContent, children = []) {
    const made = Object.assign(document.createElement(tag), { className, textContent });
    made.append(...children);
    return made;
}

function drawing(state) {
    const { room = "", subject, localSubject, conference, error } = state["features/base/conference"];
    const { audio, video } = state["features/base/media"];
    const { toolbar, menus } = offers(state);
    const off = { microphone: audio, camera: video };
    const buttons = toolbar.map((name) => element("span", off[name] ? "button off" : "button", name));
    const notices = state["features/notifications"].notifications.map(({ props }) =>
        element("div", "notification", "", [
            element("strong", "", props.title || ""), element("p", "", props.description || ""),
        ])
    );
    const standing = conference ? "in the meeting" : error ? `not in the meeting: ${error}` : "not in the meeting yet";
    return [
        element("header", "", "", [
            element("h1", "", localSubject || subject || room), element("p", "standing", standing),
        ]),
        element("section", "notifications", "", notices),
        element("section", "menus", "", conference ? menus.map((name) => element("span", "entry", name)) : []),
        element("footer", "", "", conference ? buttons : []),
    ];
}

const store = new Store();
window.APP = {
    dispatch: (action) => store.dispatch(action),
    conference: {
        muteAudio: (audio) => store.dispatch({ type: "SET_MUTED", muted: { audio } }),
        muteVideo: (video) => store.dispatch({ type: "SET_MUTED", muted: { video } }),
    },
    enter,
    offers: () => offers(store.getState()),
};
// As in jitsi-meet, the store comes after the scripts of plugin.head.html.
document.addEventListener("DOMContentLoaded", () => {
    window.APP.store = store;
    const page = document.body.appendChild(element("div", "page", ""));
    const draw = () => page.replaceChildren(...drawing(store.getState()));
    store.subscribe(draw);
    draw();
});
