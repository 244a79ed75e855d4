// Ties sliders to their numbers, keeps the address, asks for the next picture, copies texts, and marks wrong fields.
window.dash_clientside = window.dash_clientside || {};
window.dash_clientside.explore = {
  // A slider and the number beside it; on a logarithmic slider the positions are exponents of 10.
  sync(text, position, kind) {
    const same = window.dash_clientside.no_update;
    const trigger = window.dash_clientside.callback_context.triggered_id || "";
    const logarithmic = kind.startsWith("log"), whole = kind.endsWith("whole");
    if (trigger.endsWith("-range")) {
      const value = logarithmic ? 10 ** Number(position) : Number(position);
      const typed = String(whole ? Math.round(value) : Number(value.toPrecision(3)));
      describe(trigger, typed);
      return [typed, same];
    }
    const value = Number(text);
    describe(window.dash_clientside.callback_context.inputs_list[1].id, text);
    if (text === null || String(text).trim() === "" || !isFinite(value) || (logarithmic && value <= 0)) {
      return [same, same];
    }
    return [same, logarithmic ? Math.log10(value) : value];
  },
  // A list shows the value of the hidden field beside it, which the listener below sets.
  choose(value) {
    const id = window.dash_clientside.callback_context.inputs_list[0].id;
    document.getElementById(id + "-choice").value = value ?? "";
    return value;
  },
  link(query) {
    if (typeof query === "string") {
      history.replaceState(null, "", location.pathname + (query ? "?" + query : ""));
    }
    return query;
  },
  // Dash refuses callbacks that go in a circle, so that the next question is asked from outside.
  next(held) {
    if (held && held.working) {
      setTimeout(() => window.dash_clientside.set_props("tick", { data: held.asked }), 40);
    }
    return held ? held.asked : 0;
  },
};

// What readers of the screen say of a slider: its number, not the exponent that is its position.
function describe(id, text) {
  document.getElementById(id)?.setAttribute("aria-valuetext", text || "the default");
}

document.addEventListener("change", (event) => {
  if (event.target.matches("select[id$='-choice']")) {
    window.dash_clientside.set_props(event.target.id.slice(0, -"-choice".length), { value: event.target.value });
  }
});

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) {
    return;
  }
  const source = button.dataset.copy;
  const text = source === "link" ? location.href : document.getElementById(source).textContent;
  const label = (button.dataset.label ||= button.textContent);
  const say = (words) => {
    button.textContent = words;
    clearTimeout(Number(button.dataset.timer));
    button.dataset.timer = setTimeout(() => { button.textContent = label; }, 1500);
  };
  const refused = source === "link" ? "Not allowed: copy the address" : "Not allowed: select the text below";
  (navigator.clipboard?.writeText(text) ?? Promise.reject()).then(() => say("Copied"), () => say(refused));
});

// A field is wrong as long as its error says something.
function mark(error) {
  const name = error.id.slice(0, -"-error".length);
  const field = document.getElementById(name + "-choice") || document.getElementById(name);
  if (field) {
    field.setAttribute("aria-describedby", error.id);
    field.setAttribute("aria-invalid", error.textContent ? "true" : "false");
  }
}

new MutationObserver((changes) => {
  const places = changes.map(({ target }) => target.nodeType === Node.ELEMENT_NODE ? target : target.parentElement);
  if (places.some((place) => place?.id === "page")) {
    for (const slider of document.querySelectorAll("input[type=range]")) {
      describe(slider.id, document.getElementById(slider.id.slice(0, -"-range".length))?.value);
    }
    document.querySelectorAll(".error[id]").forEach(mark);
  }
  places.map((place) => place?.closest(".error[id]")).filter(Boolean).forEach(mark);
}).observe(document.documentElement, { childList: true, subtree: true, characterData: true });
