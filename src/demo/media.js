// Camera and microphone: one stream for as long as the page lives, and what to tell people who have none.

const PROBLEMS = {
  NotAllowedError: "Your browser keeps camera and microphone from this page. Allow them in its address bar, then try again.",
  NotFoundError: "No camera and no microphone was found. Others will not see or hear you.",
  NotReadableError: "Camera or microphone cannot be used: another program may hold them.",
};
const INSECURE = "Browsers lend camera and microphone only to pages that come by HTTPS, or from localhost.";
const VIDEO = { width: { ideal: 1280 }, height: { ideal: 720 } };

/** Asks for both, else for what there is: `{stream, problem}`, the problem in words or undefined. */
export async function openMedia() {
  if (!navigator.mediaDevices) return { stream: new MediaStream(), problem: INSECURE };
  let problem;
  for (const wanted of [{ audio: true, video: VIDEO }, { audio: true }, { video: VIDEO }]) {
    try {
      return { stream: await navigator.mediaDevices.getUserMedia(wanted), problem };
    } catch (error) {
      problem ??= PROBLEMS[error.name] ?? `Camera and microphone: ${error.message}`;
      // Who says no is not asked again.
      if (error.name === "NotAllowedError") break;
    }
  }
  return { stream: new MediaStream(), problem };
}

/** Whether the stream has tracks of this kind ("audio", "video") that are switched on. */
export const isOn = (stream, kind) => stream.getTracks().some((track) => track.kind === kind && track.enabled);

/** Switches all tracks of a kind on or off. */
export function toggle(stream, kind) {
  const on = !isOn(stream, kind);
  stream.getTracks().filter((track) => track.kind === kind).forEach((track) => (track.enabled = on));
}
