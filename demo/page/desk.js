// The side of the meeting service: each change goes to the demo backend, and from there into the meeting.

"use strict";

const began = Date.now(); // about when the meeting began
const outcome = document.getElementById("outcome");

async function say(change) {
    outcome.textContent = "...";
    const answer = await fetch("room", { method: "POST", body: JSON.stringify(change) });
    outcome.textContent = await answer.text();
}

function box(name, isChecked) {
    const input = Object.assign(document.createElement("input"), { type: "checkbox", id: name, checked: isChecked });
    input.addEventListener("change", () => say({ config: { [name]: input.checked } }));
    const label = Object.assign(document.createElement("label"), { className: "box" });
    label.title = name;
    label.append(input, ` ${name.replace("Enabled", "")}`);
    return label;
}

async function begin() {
    const config = await (await fetch("room")).json();
    const settings = Object.entries(config).filter(([, value]) => typeof value === "boolean");
    document.getElementById("settings").append(...settings.map(([name, value]) => box(name, value)));
    const title = document.getElementById("title");
    title.value = config.meetingTitle;
    title.addEventListener("change", () => say({ config: { meetingTitle: title.value } }));
    const cancelled = document.getElementById("cancelled");
    cancelled.addEventListener("change", () => say({ cancelled: cancelled.checked }));
    const ending = document.getElementById("ending");
    ending.addEventListener("change", () => {
        const minutesSoFar = (Date.now() - began) / 60000;
        say({ config: { maxDurationMinutes: ending.checked ? minutesSoFar + 1.2 : 60 } });
    });
}

document.querySelector("form").addEventListener("submit", (event) => event.preventDefault());
begin();
