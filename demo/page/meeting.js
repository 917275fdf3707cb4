// Joins the room of the demo, with the real lib-jitsi-meet.
"use strict";

const { CONNECTION_ESTABLISHED, CONNECTION_FAILED } = JitsiMeetJS.events.connection;

JitsiMeetJS.init({ disableAudioLevels: true });
JitsiMeetJS.setLogLevel(JitsiMeetJS.logLevels.ERROR);

function connect({ hosts, serviceUrl }) {
    const connection = new JitsiMeetJS.JitsiConnection(null, null, { hosts, serviceUrl, enableWebsocketResume: false });
    return new Promise((resolve, reject) => {
        connection.addEventListener(CONNECTION_ESTABLISHED, () => resolve(connection));
        connection.addEventListener(CONNECTION_FAILED, reject);
        connection.connect();
    });
}

async function begin() {
    const where = await (await fetch("where.json")).json();
    const connection = await connect(where);
    const conference = connection.initJitsiConference(where.room, { testing: {}, p2p: { enabled: false } });
    conference.setDisplayName("You");
    window.APP.enter(conference, where.room);
    document.getElementById("leave").addEventListener("click", () => conference.leave());
    // A conference that was refused can be joined again; one that was left is over.
    document.getElementById("join").addEventListener("click", () => {
        const { error, conference: joined } = window.APP.store.getState()["features/base/conference"];
        if (error) conference.join();
        else if (!joined) window.location.reload();
    });
    conference.join();
}

begin();
