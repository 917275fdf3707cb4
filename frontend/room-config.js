// Applies a meeting's settings to Jitsi's page, and shows why somebody may not join and when the meeting ends.
//
// It belongs into Jitsi's plugin.head.html (docs/frontend.md). It only hides: what is forbidden, the server refuses.
// It needs no build step, sends nothing, and shows what it has received as text, never as HTML.
//
//   room metadata, ROOM_CONFIG ----> RoomConfig ----> OVERWRITE_CONFIG and others, in Jitsi's store
//   JOIN_REFUSED, MEETING_ENDING ------'   '--------> Dialog, Notice

(() => {
    "use strict";

    /**
     * @typedef {{ [name: string]: any }} Values
     * @typedef {{ getState: () => Values, dispatch: (action: Values) => any, subscribe: (f: () => void) => any }} Store
     * @typedef {{ on: (event: string, listener: (...args: any[]) => void) => unknown, [name: string]: any }} Conference
     * @typedef {(own: any) => unknown} Change  What becomes of a value that the page has.
     */

    /**
     * What a setting that is `false` changes in the page's config, and the toolbar buttons that it removes. `true` adds
     * nothing that the page does not have.
     * @type {Record<string, { config?: Record<string, unknown>, buttons?: string[] }>}
     */
    const WHEN_FALSE = {
        breakoutRoomsEnabled: {
            config: {
                "breakoutRooms.hideAddRoomButton": true,
                "breakoutRooms.hideAutoAssignButton": true,
                "breakoutRooms.hideJoinRoomButton": true,
            },
        },
        chatEnabled: { config: { disableChat: true }, buttons: ["chat"] },
        closedCaptionsEnabled: { config: { "transcription.disableClosedCaptions": true }, buttons: ["closedcaptions"] },
        e2eeEnabled: { config: { "e2ee.disabled": true } },
        filmstripEnabled: { config: { "filmstrip.disabled": true } },
        kickParticipantsEnabled: { config: { "remoteVideoMenu.disableKick": true } },
        liveStreamingEnabled: { config: { "liveStreaming.enabled": false }, buttons: ["livestreaming"] },
        muteAllEnabled: {
            config: { "participantsPane.hideMuteAllButton": true },
            buttons: ["mute-everyone", "mute-video-everyone"],
        },
        noiseSuppressionEnabled: { buttons: ["noisesuppression"] },
        participantNameEditingEnabled: { config: { readOnlyName: true } },
        pollsEnabled: { config: { disablePolls: true }, buttons: ["polls"] },
        privateMessagesEnabled: { config: { "remoteVideoMenu.disablePrivateChat": "all" } },
        raiseHandEnabled: { buttons: ["raisehand"] },
        reactionsEnabled: { config: { disableReactions: true }, buttons: ["reactions"] },
        recordingEnabled: {
            // Without the button named "recording", Jitsi does not offer live streams either.
            config: { "recordingService.enabled": false, "localRecording.disable": true, "dropbox.appKey": undefined },
        },
        screenShareEnabled: { buttons: ["desktop", "shareaudio"] },
        securityEnabled: { buttons: ["security"] },
        sharedDocumentEnabled: { buttons: ["etherpad"] },
        speakerStatsEnabled: { config: { "speakerStats.disabled": true }, buttons: ["stats"] },
        tileViewEnabled: { config: { disableTileView: true }, buttons: ["tileview"] },
        virtualBackgroundsEnabled: { config: { "virtualBackground.disabled": true }, buttons: ["select-background"] },
        whiteboardEnabled: { config: { "whiteboard.enabled": false }, buttons: ["whiteboard"] },
    };

    /**
     * The buttons of a page whose config does not list any, as in toolbox/constants.ts of jitsi-meet; those that a newer
     * Jitsi has are added. Others exist, such as "reactions", that a page has only if its config lists them.
     */
    const BUTTONS = [
        "audiotranslation", "camera", "chat", "closedcaptions", "custom-panel", "desktop", "download", "embedmeeting",
        "etherpad", "feedback", "filesharing", "fullscreen", "hangup", "help", "highlight", "invite",
        "linktosalesforce", "livestreaming", "microphone", "mute-everyone", "mute-video-everyone", "noisesuppression",
        "participants-pane", "polls", "profile", "raisehand", "recording", "security", "select-background", "settings",
        "shareaudio", "sharedvideo", "shortcuts", "stats", "tileview", "toggle-camera", "videoquality", "whiteboard",
    ];

    /** For each config that is received. */
    const MOST_WRITES = 200;

    /** Each can be replaced with the attribute `data-texts` of the script, for example by a translation. */
    const TEXTS = {
        close: "Close",
        continue: "Continue",
        endsIn: "This meeting ends in {time}.",
        endsNow: "This meeting is ending.",
        ended: "The meeting has ended",
        logIn: "Log in",
        loginNeeded: "You have to log in to join this meeting.",
        maxDuration: "It has reached its longest duration.",
        refused: "You cannot join this meeting",
        removed: "You were removed from the meeting",
    };

    /** @param {unknown} value */
    const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);

    /**
     * A text with something in it, or "".
     * @param {unknown} value
     */
    const text = (value) => (typeof value === "string" ? value.trim() : "");

    /** @param {unknown} a @param {unknown} b */
    const isSame = (a, b) => a === b || JSON.stringify(a) === JSON.stringify(b);

    /**
     * @param {Values} config
     * @param {string} path `key` or `key.member`
     */
    function valueAt(config, path) {
        const [key, member] = path.split(".");
        return member && isObject(config[key]) ? config[key][member] : member ? undefined : config[key];
    }

    /**
     * What to overwrite in a config, so that it has this value there; undefined removes it. The neighbours stay.
     * @param {Values} config
     * @param {string} path
     * @param {unknown} value
     */
    function overwriteAt(config, path, value) {
        const [key, member] = path.split(".");
        if (!member) return { [key]: value };
        const changed = { ...(isObject(config[key]) ? config[key] : {}), [member]: value };
        if (value === undefined) delete changed[member];
        return { [key]: changed };
    }

    /**
     * What settings change in the page's config: path -> change.
     * @param {Values} settings
     * @param {string[]} buttons the names of the buttons that this Jitsi has
     * @returns {Map<string, Change>}
     */
    function changesFor(settings, buttons) {
        /** @type {Map<string, Change>} */
        const changes = new Map();
        /** @type {Set<string>} */
        const removed = new Set();
        for (const [name, effect] of Object.entries(WHEN_FALSE)) {
            if (settings[name] !== false) continue;
            for (const [path, value] of Object.entries(effect.config || {})) changes.set(path, () => value);
            for (const button of effect.buttons || []) removed.add(button);
        }
        const only = Array.isArray(settings.toolbarButtons) ? settings.toolbarButtons : null;
        if (only || removed.size) {
            changes.set("toolbarButtons", (own) =>
                (Array.isArray(own) ? own : buttons).filter(
                    (/** @type {string} */ button) => !removed.has(button) && (!only || only.includes(button))
                )
            );
        }
        return changes;
    }

    /**
     * Where a refused user may be sent, or null: only to the page's own origin, or one that the operator listed.
     * @param {unknown} url
     * @param {string} page the address of the page
     * @param {string[]} origins
     */
    function allowedAddress(url, page, origins) {
        if (!text(url)) return null;
        try {
            const address = new URL(text(url), page);
            const allowed = [page, ...origins].map((each) => new URL(each).origin);
            return /^https?:$/.test(address.protocol) && allowed.includes(address.origin) ? address.href : null;
        } catch (error) {
            return null;
        }
    }

    /**
     * "4:05", also for more than an hour.
     * @param {number} milliseconds
     */
    function clockTime(milliseconds) {
        const seconds = Math.max(0, Math.ceil(milliseconds / 1000));
        return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
    }

    /** A value of the page that is changed, and that can be as it was again, also after others have written it. */
    class Borrowed {
        /**
         * @param {() => unknown} read
         * @param {(value: unknown) => void} write
         */
        constructor(read, write) {
            this.read = read;
            this.write = write;
            this.isOurs = false;
            /** @type {unknown} */
            this.own = undefined;
            /** @type {unknown} */
            this.written = undefined;
        }

        /** @param {Change} [change] without one, the page's own value comes back */
        set(change) {
            const now = this.read();
            if (!this.isOurs || !isSame(now, this.written)) this.own = now;
            if (!change && !this.isOurs) return;
            this.isOurs = Boolean(change);
            this.written = change ? change(this.own) : this.own;
            if (!isSame(this.written, now)) this.write(this.written);
        }
    }

    /** What this page does for a meeting. */
    class RoomConfig {
        /**
         * @param {object} page
         * @param {Store} page.store Jitsi's
         * @param {Values} page.events `JitsiMeetJS.events.conference`
         * @param {() => Values} page.media with `muteAudio` and `muteVideo`: `APP.conference`
         * @param {Values} page.dialog a Dialog
         * @param {Values} page.notice a Notice
         * @param {(line: string) => void} page.warn
         * @param {Record<string, string>} page.texts
         * @param {(url: unknown) => string | null} page.allowedAddress
         */
        constructor(page) {
            this.page = page;
            /** @type {Set<string>} */
            this.warned = new Set();
            /** @type {Map<string, Borrowed>} */
            this.values = new Map();
            this.title = new Borrowed(
                () => this.meeting().localSubject,
                (localSubject) => this.dispatch({ type: "CONFERENCE_LOCAL_SUBJECT_CHANGED", localSubject })
            );
            /** @type {Values | null} */
            this.settings = null;
            /** @type {Conference | null} */
            this.conference = null;
            /** @type {Values} */
            this.lastConfig = {};
            /** @type {string | null} */
            this.room = null;
            /** @type {string | null} */
            this.arrivedIn = null;
            this.described = "";
            this.isIn = false;
            this.isOver = false;
            this.isApplying = false;
            this.writes = 0;
        }

        start() {
            this.page.store.subscribe(() => this.guard("the state of the page", () => this.look()));
            this.guard("the state of the page", () => this.look());
        }

        /**
         * A mistake here, or a Jitsi that is different, must not harm the page: one line for each thing that fails.
         * @param {string} what
         * @param {() => unknown} action
         */
        guard(what, action) {
            /** @param {unknown} error */
            const warn = (error) => {
                if (this.warned.has(what)) return;
                this.warned.add(what);
                this.page.warn(`room-config: ${what}: ${error instanceof Error ? error.message : typeof error}`);
            };
            try {
                const result = action();
                if (result instanceof Promise) result.catch(warn);
            } catch (error) {
                warn(error);
            }
        }

        /**
         * Another script that answers each change with its own would never end.
         * @param {Values} action
         */
        dispatch(action) {
            this.writes += 1;
            if (this.writes > MOST_WRITES) throw new Error("another script changes it back again and again");
            this.page.store.dispatch(action);
        }

        config() {
            return this.page.store.getState()["features/base/config"] || {};
        }

        /** What it shows would be in the recording. */
        isRecorder() {
            return Boolean(this.config().iAmRecorder);
        }

        meeting() {
            return this.page.store.getState()["features/base/conference"] || {};
        }

        /** At each change of the page's state. */
        look() {
            if (this.isApplying) return;
            const state = this.meeting();
            const conference = state.joining || state.conference || state.membersOnly || state.passwordRequired;
            if (conference && conference !== this.conference) this.watch(conference, state);
            if (!this.settings) return;
            if (this.config() !== this.lastConfig) this.applyConfig();
            this.applyTitle();
        }

        /**
         * A breakout room is another conference in the same room of the page.
         * @param {Conference} conference
         * @param {Values} state
         */
        watch(conference, state) {
            this.conference = conference;
            this.isIn = false; // the earlier conference may leave later, or may not say it at all
            if (state.room !== this.room) {
                this.room = state.room;
                this.page.notice.end();
                if (this.settings) this.apply({});
                this.settings = null;
                this.described = "";
            }
            const { events } = this.page;
            /** @type {[string, (...args: any[]) => void][]} */
            const listeners = [
                [events.CONFERENCE_JOINED, () => this.onJoined()],
                [events.CONFERENCE_LEFT, () => this.onLeft()],
                [events.CONFERENCE_FAILED, () => this.onLeft()],
                [events.KICKED, (by, reason, isReplaced) => this.onKicked(by, reason, isReplaced)],
                [events.METADATA_UPDATED, (metadata) => this.onMetadata(metadata)],
                // Only the room itself has no ID. A participant can send the same JSON.
                [events.NON_PARTICIPANT_MESSAGE_RECEIVED, (id, message) => id === null && this.onMessage(message)],
            ];
            for (const [event, listener] of listeners) {
                if (!event) continue;
                conference.on(event, (...args) =>
                    this.guard(event, () => conference === this.conference && listener(...args))
                );
            }
            if (state.conference === conference) this.onJoined(); // this script was late
            else this.readMetadata();
        }

        readMetadata() {
            const { conference } = this;
            const handler = conference && conference.getMetadataHandler && conference.getMetadataHandler();
            if (handler) this.onMetadata(handler.getMetadata());
        }

        /** @param {unknown} metadata */
        onMetadata(metadata) {
            const found = /** @type {Values} */ (isObject(metadata) ? metadata : {}).roomConfig;
            if (isObject(found)) this.apply(found);
        }

        /** @param {any} message */
        onMessage(message) {
            if (!isObject(message)) return;
            if (message.type === "ROOM_CONFIG" && isObject(message.config)) this.apply(message.config);
            if (this.isRecorder()) return;
            if (message.type === "JOIN_REFUSED") this.showRefusal(message);
            if (message.type === "MEETING_ENDING") this.page.notice.countDown(message.minutesLeft);
            if (message.type === "MEETING_ENDED") this.showEnd(message);
        }

        onJoined() {
            this.isIn = true;
            this.isOver = false;
            this.page.dialog.close();
            this.page.notice.goOn();
            this.readMetadata();
            this.arrive();
        }

        onLeft() {
            this.isIn = false;
            this.page.notice.pause();
        }

        /** @param {unknown} by @param {unknown} reason @param {unknown} isReplaced */
        onKicked(by, reason, isReplaced) {
            this.onLeft();
            if (by || isReplaced || this.isOver || this.isRecorder() || !text(reason)) return;
            this.page.dialog.show({ title: this.page.texts.removed, paragraphs: [text(reason)] });
        }

        /** @param {Values} settings */
        apply(settings) {
            this.settings = settings;
            this.writes = 0;
            this.applyConfig();
            this.applyTitle();
            this.arrive();
        }

        applyConfig() {
            const { toolbarButtons } = this.page.store.getState()["features/toolbox"] || {};
            const newer = Array.isArray(toolbarButtons) ? toolbarButtons : [];
            const changes = changesFor(this.settings || {}, [...new Set([...BUTTONS, ...newer])]);
            for (const path of changes.keys()) if (!this.values.has(path)) this.values.set(path, this.borrow(path));
            this.isApplying = true;
            for (const [path, value] of this.values) this.guard(path, () => value.set(changes.get(path)));
            this.isApplying = false;
            this.lastConfig = this.config();
            this.guard("e2eeEnabled", () => this.applyToConference());
        }

        /** lib-jitsi-meet has a config of its own, and looks there when the user joins, or switches encryption on. */
        applyToConference() {
            const options = this.conference && this.conference.options;
            if (options && isObject(options.config) && this.values.has("e2ee.disabled")) {
                options.config.e2ee = this.config().e2ee;
            }
        }

        /** @param {string} path */
        borrow(path) {
            return new Borrowed(
                () => valueAt(this.config(), path),
                (value) => this.dispatch({ type: "OVERWRITE_CONFIG", config: overwriteAt(this.config(), path, value) })
            );
        }

        /** A subject that somebody has given to the room has priority. */
        applyTitle() {
            const title = text((this.settings || {}).meetingTitle);
            const isShown = title && !text(this.meeting().subject);
            this.guard("meetingTitle", () => this.title.set(isShown ? () => title : undefined));
        }

        /** What happens once the user is in, and the settings are known. */
        arrive() {
            const { settings, page } = this;
            if (!this.isIn || !settings) return;
            this.guard("meetingDescription", () => this.describe(settings));
            if (this.arrivedIn === this.room) return;
            this.arrivedIn = this.room;
            if (settings.muteOnJoin === true) this.guard("muteOnJoin", () => page.media().muteAudio(true));
            if (settings.videoOffOnJoin === true) this.guard("videoOffOnJoin", () => page.media().muteVideo(true));
        }

        /** @param {Values} settings */
        describe(settings) {
            const description = text(settings.meetingDescription);
            if (description === this.described) return;
            this.described = description;
            if (!description || this.isRecorder()) return;
            const props = { title: text(settings.meetingTitle) || undefined, description };
            this.dispatch({ type: "SHOW_NOTIFICATION", props, timeout: 10000, uid: "room-config" });
        }

        /** @param {Values} message */
        showRefusal({ reason, title, requireAuth, redirectUrl }) {
            const { texts, dialog } = this.page;
            const address = this.page.allowedAddress(redirectUrl);
            const [login, label] = requireAuth === true ? [texts.loginNeeded, texts.logIn] : ["", texts.continue];
            const paragraphs = [text(title) && texts.refused, text(reason), login].filter(Boolean);
            dialog.show({ title: text(title) || texts.refused, paragraphs, link: address && { address, label } });
        }

        /** @param {Values} message */
        showEnd({ reason }) {
            this.isOver = true;
            this.page.notice.end();
            const why = reason === "max-duration" ? this.page.texts.maxDuration : text(reason);
            this.page.dialog.show({ title: this.page.texts.ended, paragraphs: why ? [why] : [] });
        }
    }

    // System colours follow the browser's light or dark mode. A sheet that is made here is allowed by any policy.
    const STYLE = `
        :host { all: initial; color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
        dialog { box-sizing: border-box; width: min(30rem, calc(100vw - 2rem)); max-height: calc(100vh - 2rem);
            overflow: auto; padding: 1.5rem; border: 1px solid GrayText; border-radius: 0.5rem;
            background: Canvas; color: CanvasText; }
        dialog::backdrop { background: rgba(0, 0, 0, 0.6); }
        h1 { margin: 0 0 0.75rem; font-size: 1.25rem; line-height: 1.3; }
        h1, p { overflow-wrap: anywhere; white-space: pre-wrap; }
        p { margin: 0 0 0.75rem; }
        .actions { display: flex; flex-wrap: wrap; gap: 0.75rem; justify-content: flex-end; margin-top: 1.5rem; }
        button, a { box-sizing: border-box; min-height: 2.75rem; padding: 0.5rem 1rem; border: 1px solid GrayText;
            border-radius: 0.25rem; background: ButtonFace; color: ButtonText; font: inherit; cursor: pointer; }
        a { border-color: transparent; background: #0b57d0; color: #fff; text-decoration: none; }
        button:focus-visible, a:focus-visible { outline: 3px solid Highlight; outline-offset: 2px; }
        .notice { position: fixed; z-index: 2147483647; top: 0.75rem; left: 50%; transform: translateX(-50%);
            box-sizing: border-box; width: max-content; max-width: calc(100vw - 1.5rem); display: flex; gap: 0.75rem;
            align-items: center; padding: 0.25rem 0.25rem 0.25rem 1rem; border: 1px solid GrayText;
            border-radius: 0.5rem; background: Canvas; color: CanvasText; font-variant-numeric: tabular-nums; }
        .notice button { border: 0; background: none; color: inherit; }
    `;

    /**
     * @param {string} tag
     * @param {Values} [properties]
     * @param {Node[]} [children]
     */
    function element(tag, properties, children) {
        const made = Object.assign(document.createElement(tag), properties);
        made.append(...(children || []));
        return made;
    }

    /**
     * A place in the page that Jitsi's styles do not reach.
     * @param {HTMLElement} content
     */
    function place(content) {
        const host = document.createElement("div");
        const root = host.attachShadow({ mode: "open" });
        if ("adoptedStyleSheets" in document) {
            const sheet = new CSSStyleSheet();
            sheet.replaceSync(STYLE);
            root.adoptedStyleSheets = [sheet];
        }
        root.append(content);
        document.body.append(host);
        return host;
    }

    /** One message at a time that waits for the user. */
    class Dialog {
        /** @param {Record<string, string>} texts */
        constructor(texts) {
            this.texts = texts;
            /** @type {HTMLElement | null} */
            this.host = null;
        }

        /** @param {{ title: string, paragraphs: string[], link?: { address: string, label: string } | null }} content */
        show({ title, paragraphs, link }) {
            this.close();
            const actions = [element("button", { textContent: this.texts.close, onclick: () => this.close() })];
            if (link) {
                // The whole window: the page of a login refuses to be in a frame.
                actions.unshift(element("a", { textContent: link.label, href: link.address, target: "_top" }));
            }
            const dialog = /** @type {HTMLDialogElement} */ (
                // The event comes late: another message may have replaced this one.
                element("dialog", { onclose: () => dialog.isConnected && this.close() }, [
                    element("h1", { id: "title", dir: "auto", textContent: title }),
                    ...paragraphs.map((each) => element("p", { dir: "auto", textContent: each })),
                    element("div", { className: "actions" }, actions),
                ])
            );
            dialog.setAttribute("aria-labelledby", "title");
            this.host = place(dialog);
            dialog.showModal();
        }

        close() {
            if (this.host) this.host.remove();
            this.host = null;
        }
    }

    /** The time until the meeting ends, at the top of the page. */
    class Notice {
        /** @param {Record<string, string>} texts */
        constructor(texts) {
            this.texts = texts;
            this.endsAt = 0;
            this.timer = 0;
            /** @type {HTMLElement | null} */
            this.host = null;
            this.words = document.createElement("span");
        }

        /** @param {unknown} minutes */
        countDown(minutes) {
            if (typeof minutes !== "number" || !(minutes >= 0)) return;
            this.endsAt = Date.now() + minutes * 60000;
            this.goOn();
        }

        /** After a pause, such as a change of room. */
        goOn() {
            this.pause();
            if (Date.now() > this.endsAt) return;
            const { close } = this.texts;
            const button = element("button", { textContent: "\u2715", title: close, onclick: () => this.end() });
            const notice = element("div", { className: "notice" }, [this.words, button]);
            notice.setAttribute("role", "timer");
            this.tick();
            this.host = place(notice);
            this.timer = window.setInterval(() => this.tick(), 1000);
        }

        tick() {
            const left = this.endsAt - Date.now();
            if (left < -30000) this.end(); // the meeting has got more time
            const { endsIn, endsNow } = this.texts;
            this.words.textContent = left > 0 ? endsIn.replace("{time}", clockTime(left)) : endsNow;
        }

        pause() {
            window.clearInterval(this.timer);
            if (this.host) this.host.remove();
            this.host = null;
        }

        end() {
            this.endsAt = 0;
            this.pause();
        }
    }

    /**
     * Whether the operator has written the origin of an address, without a pattern.
     * @param {string} origin
     */
    function isOrigin(origin) {
        try {
            return /^https?:\/\/[^/\\?#@*,;]+\/?$/.test(origin) && Boolean(new URL(origin));
        } catch (error) {
            return false;
        }
    }

    /**
     * @param {string} json
     * @param {(line: string) => void} warn
     * @returns {typeof TEXTS}
     */
    function readTexts(json, warn) {
        /** @type {unknown} */
        let own = null;
        try {
            own = JSON.parse(json);
        } catch (error) {
            // the line below says it
        }
        if (!isObject(own)) warn("data-texts: a JSON object is needed, such as {\"close\": \"Schliessen\"}");
        const entries = Object.entries(isObject(own) ? /** @type {Values} */ (own) : {}).filter(([name, words]) => {
            const isKnown = Object.keys(TEXTS).includes(name);
            if (!isKnown) warn(`data-texts: there is no text named ${name}`);
            else if (!text(words)) warn(`data-texts: ${name} must be a text in quotes, and not empty`);
            return isKnown && text(words);
        });
        return { ...TEXTS, ...Object.fromEntries(entries) };
    }

    /**
     * The attributes of the script's tag.
     * @param {{ dataset: DOMStringMap } | null} script
     * @param {(line: string) => void} warn
     */
    function readOptions(script, warn) {
        const { redirectOrigins = "", texts = "{}" } = script ? script.dataset : {};
        /** @param {string} line */
        const warnOfOption = (line) => warn(`room-config: ${line}`);
        const origins = redirectOrigins.split(/\s+/).filter(Boolean).filter((each) => {
            const isUsable = isOrigin(each);
            if (!isUsable) warnOfOption(`data-redirect-origins: ${each} must look like https://login.example.com`);
            return isUsable;
        });
        return { origins, texts: readTexts(texts, warnOfOption) };
    }

    /**
     * Calls back once this property has a value. It does not look again and again: a refusal comes once, and in a page in
     * the background a timer may be a second late.
     * @param {Values} object
     * @param {string} name
     * @param {(value: any) => void} then
     */
    function onceSet(object, name, then) {
        if (object[name]) return then(object[name]);
        Object.defineProperty(object, name, {
            configurable: true,
            enumerable: true,
            get: () => undefined,
            set: (value) => {
                Object.defineProperty(object, name, { value, configurable: true, enumerable: true, writable: true });
                if (value) then(value);
            },
        });
    }

    /** Jitsi makes its store some time after this script was loaded. */
    function startWithJitsi() {
        /** @param {string} line */
        const warn = (line) => console.warn(line); // eslint-disable-line no-console
        const { origins, texts } = readOptions(document.currentScript, warn);
        /** @param {Values} APP */
        const begin = (APP) => {
            new RoomConfig({
                store: APP.store,
                events: /** @type {Values} */ (window).JitsiMeetJS.events.conference,
                media: () => APP.conference,
                dialog: new Dialog(texts),
                notice: new Notice(texts),
                warn,
                texts,
                allowedAddress: (url) => allowedAddress(url, window.location.href, origins),
            }).start();
        };
        // In a task of its own, so that a mistake here does not stop Jitsi.
        onceSet(window, "APP", (APP) => onceSet(APP, "store", () => queueMicrotask(() => begin(APP))));
    }

    if (typeof module === "object") {
        module.exports = { WHEN_FALSE, BUTTONS, TEXTS, changesFor, allowedAddress, clockTime, readOptions, RoomConfig };
    } else {
        startWithJitsi();
    }
})();
