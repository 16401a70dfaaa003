/** What the person has to do something about: printed as one sentence, without a stack. */
export class SetupProblem extends Error {
  override readonly name = "SetupProblem"
}
