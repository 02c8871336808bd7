"use strict";
// Numbers for people, as the command line writes them.

function significant(value) {
  const text = value < 9.995 ? value.toFixed(2) : value < 99.95 ? value.toFixed(1) : value.toFixed(0);
  return text.includes(".") ? text.replace(/0+$/, "").replace(/\.$/, "") : text;
}

function bytes(value) {
  let unit = "B";
  for (const larger of ["kB", "MB", "GB", "TB", "PB", "EB"]) {
    if (value < 999.5) break;
    value /= 1000;
    unit = larger;
  }
  return `${significant(value)} ${unit}`;
}

const perSecond = value => `${bytes(value)}/s`;

function files(value) {
  return value < 10_000 ? String(value) : significant(value / (value < 999_500 ? 1e3 : 1e6)) + (value < 999_500 ? " k" : " M");
}

function latency(us) {
  return us < 100_000 ? `${significant(us / 1e3)} ms` : `${significant(us / 1e6)} s`;
}

function offset(ms) {
  if (ms === null) return "not measured yet";
  if (Math.abs(ms) < 0.05) return "0.0 ms";
  const sign = ms < 0 ? "" : "+";
  return Math.abs(ms) < 1000 ? `${sign}${ms.toFixed(1)} ms` : `${sign}${(ms / 1e3).toFixed(1)} s`;
}

function duration(seconds) {
  const s = Math.max(0, Math.floor(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 86_400) return `${Math.floor(s / 3600)} h ${String(Math.floor(s / 60) % 60).padStart(2, "0")} min`;
  return `${Math.floor(s / 86_400)} d ${Math.floor(s / 3600) % 24} h`;
}

function time(ms) {
  const at = new Date(ms);
  const two = number => String(number).padStart(2, "0");
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ` +
    `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
}

/// An element with a class and content; texts are never taken for HTML.
function make(tag, name, ...content) {
  const element = document.createElement(tag);
  if (name) element.className = name;
  element.append(...content.map(part => part instanceof Node ? part : String(part)));
  return element;
}
